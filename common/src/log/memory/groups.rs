//! Consumer groups: their committed offsets, and who owns what.

use std::collections::BTreeMap;

/// The members of a group that read one topic.
#[derive(Debug, Default)]
struct Members {
    /// In the order in which they joined.
    ids: Vec<u64>,
    /// Who owns each partition, and the number of the assignment that said so.
    owners: BTreeMap<i32, (u64, u64)>,
}

/// By group and topic.
#[derive(Debug, Default)]
pub(super) struct Groups {
    committed: BTreeMap<(String, String), BTreeMap<i32, i64>>,
    members: BTreeMap<(String, String), Members>,
    /// Of members and assignments: no two are the same.
    last_number: u64,
}

fn key(group: &str, topic: &str) -> (String, String) {
    (group.to_owned(), topic.to_owned())
}

impl Groups {
    pub fn committed(&self, group: &str, topic: &str) -> BTreeMap<i32, i64> {
        self.committed.get(&key(group, topic)).cloned().unwrap_or_default()
    }

    pub fn commit(&mut self, group: &str, topic: &str, offsets: &BTreeMap<i32, i64>) {
        self.committed.entry(key(group, topic)).or_default().extend(offsets);
    }

    pub fn has_members(&self, group: &str) -> bool {
        self.members.iter().any(|((name, _), members)| name == group && !members.ids.is_empty())
    }

    /// Returns the new member.
    pub fn join(&mut self, group: &str, topic: &str, partitions: impl Iterator<Item = i32>) -> u64 {
        self.last_number += 1;
        let member = self.last_number;
        let members = self.members.entry(key(group, topic)).or_default();
        members.ids.push(member);
        for partition in partitions {
            members.owners.entry(partition).or_insert((member, member));
        }
        self.balance(group, topic);
        member
    }

    pub fn leave(&mut self, group: &str, topic: &str, member: u64) {
        if let Some(members) = self.members.get_mut(&key(group, topic)) {
            members.ids.retain(|id| *id != member);
        }
        self.balance(group, topic);
    }

    /// Gives the partitions to the members in turn. A partition that stays where it is keeps its assignment.
    fn balance(&mut self, group: &str, topic: &str) {
        let Some(members) = self.members.get_mut(&key(group, topic)) else { return };
        self.last_number += 1;
        let ids = members.ids.iter().copied().cycle();
        for (owner, id) in members.owners.values_mut().zip(ids) {
            if owner.0 != id {
                *owner = (id, self.last_number);
            }
        }
    }

    /// What a member owns, and the number of each assignment.
    pub fn owned(&self, group: &str, topic: &str, member: u64) -> BTreeMap<i32, u64> {
        let owners = self.members.get(&key(group, topic)).into_iter().flat_map(|members| &members.owners);
        owners.filter(|(_, (owner, _))| *owner == member).map(|(id, (_, number))| (*id, *number)).collect()
    }
}
