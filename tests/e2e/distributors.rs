//! Several distributors on one topic, one of which is stopped while another replaces it.

use crate::harness::{Ed, Process, Services, entries, services, unique_keys, wait_until};
use crate::kafka_s3::Zone;

/// A distributor that is stopped in the middle of its batches resumes when another owns its partitions: its late puts
/// and commits change nothing.
#[test]
fn a_distributor_that_resumes_after_its_successor_took_over_does_no_harm() {
    let zone = Zone::new(&services(), "sleeper");
    let mut expected = zone.land("first", 30_000, "ndjson", 21);
    zone.ingest().args(&["--once"]).report();
    let logs = tempfile::tempdir().unwrap();
    let start = |name: &str| -> Process {
        zone.distribute()
            .set("kafka.client.session.timeout.ms=6000")
            .set("flush.max_rows=1000")
            .set("flush.max_age=500ms")
            .start(&logs.path().join(name))
    };
    let mut sleeper = start("sleeper");
    wait_until("it is in the middle", || entries(&zone.trusted.1) >= 4);
    sleeper.signal("STOP");
    let before = entries(&zone.trusted.1);
    let mut heir = start("heir");
    wait_until("the heir goes on", || entries(&zone.trusted.1) > before + 4);
    // Records that the stopped one has never read, so that both have something to write.
    expected += zone.land("second", 10_000, "ndjson", 22);
    zone.ingest().args(&["--once"]).report();
    sleeper.signal("CONT");
    wait_until("everything is written, by whomever", || {
        let audit = zone.verify().args(&["--output", "json"]).output();
        let audit: serde_json::Value = serde_json::from_slice(&audit.stdout).unwrap_or_default();
        assert_eq!(audit["findings"], serde_json::json!([]), "sound at every moment: {audit}");
        let partitions = audit["partitions"].as_array().unwrap();
        partitions.iter().map(|partition| partition["rows"].as_u64().unwrap()).sum::<u64>() == expected
    });
    for process in [&mut sleeper, &mut heir] {
        process.signal("TERM");
        assert_eq!(process.wait_for_exit(), Some(0));
    }
    assert_eq!(unique_keys(&zone.trusted.1).len() as u64, expected);
    zone.assert_sound();
}

/// Two distributors of a group, one of which is killed in the middle. `settings` choose how the group shares
/// partitions; `name_of_its_own` gives each member a static name and restarts the killed one under its own.
fn a_group_of_two_survives_a_kill(zone: &Zone, settings: &[&str], name_of_its_own: bool) {
    let mut expected = zone.land("first", 20_000, "ndjson", 31);
    zone.ingest().args(&["--once"]).report();
    let logs = tempfile::tempdir().unwrap();
    let start = |name: &str| -> Process {
        let mut member = zone.distribute().set("flush.max_rows=500").set("flush.max_age=500ms");
        for setting in settings {
            member = member.set(setting);
        }
        if name_of_its_own {
            member = member.set(&format!("kafka.instance_id={name}"));
        }
        member.start(&logs.path().join(name))
    };
    let output = |name: &str| std::fs::read_to_string(logs.path().join(name)).unwrap_or_default();
    let mut victim = start("victim");
    wait_until("the first one works", || {
        assert!(!victim.has_ended(), "{}", output("victim"));
        entries(&zone.trusted.1) >= 2
    });
    let mut survivor = start("survivor");
    wait_until("the second one has partitions too", || {
        assert!(!victim.has_ended() && !survivor.has_ended(), "{}{}", output("victim"), output("survivor"));
        let of_the_second = output("survivor");
        of_the_second.lines().any(|line| line.contains("partitions assigned partitions=[") && !line.contains("[]"))
    });
    victim.kill();
    let mut heir = name_of_its_own.then(|| start("victim"));
    // Some for each partition, so that every owner has something to write.
    expected += zone.land("second", 10_000, "ndjson", 32);
    zone.ingest().args(&["--once"]).report();
    wait_until("everything is written", || {
        let audit = zone.verify().args(&["--output", "json"]).output();
        let audit: serde_json::Value = serde_json::from_slice(&audit.stdout).unwrap_or_default();
        assert!(!survivor.has_ended(), "{}", output("survivor"));
        assert_eq!(audit["findings"], serde_json::json!([]), "sound at every moment: {audit}");
        let partitions = audit["partitions"].as_array().unwrap();
        partitions.iter().map(|partition| partition["rows"].as_u64().unwrap()).sum::<u64>() == expected
    });
    for process in [&mut survivor].into_iter().chain(&mut heir) {
        process.signal("TERM");
        assert_eq!(process.wait_for_exit(), Some(0));
    }
    assert_eq!(unique_keys(&zone.trusted.1).len() as u64, expected);
    zone.assert_sound();
}

#[test]
fn a_group_with_an_eager_assignor_survives_a_kill() {
    let settings = ["kafka.client.partition.assignment.strategy=range", "kafka.client.session.timeout.ms=6000"];
    a_group_of_two_survives_a_kill(&Zone::new(&services(), "eager"), &settings, false);
}

#[test]
fn a_group_with_the_cooperative_assignor_survives_a_kill() {
    let zone = Zone::new(&services(), "cooperative");
    a_group_of_two_survives_a_kill(&zone, &["kafka.client.session.timeout.ms=6000"], false);
}

/// KIP-848: the broker sets the session time-out.
#[test]
fn a_group_of_the_new_protocol_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let own = Services::own_with(
        folder.path(),
        &[
            "group.consumer.min.session.timeout.ms=6000",
            "group.consumer.session.timeout.ms=6000",
            "group.consumer.min.heartbeat.interval.ms=1000",
            "group.consumer.heartbeat.interval.ms=1000",
        ],
    );
    let zone = Zone::new(&own.services, "consumer");
    a_group_of_two_survives_a_kill(&zone, &["kafka.client.group.protocol=CONSUMER"], false);
}

#[test]
fn settings_of_the_other_protocol_are_wrong_configuration() {
    let wrong = ["kafka.client.group.protocol=consumer", "kafka.client.session.timeout.ms=6000"];
    let output = Ed::new(&["distribute", "--brokers", "k:1", "--trusted", "t"]).set(wrong[0]).set(wrong[1]).output();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code() == Some(2) && stderr.contains("cannot be set with group.protocol=consumer"),
        "{stderr}"
    );
}

/// Under its static name it gets its partitions back at once: the session time-out of the killed member is far longer
/// than this test waits.
#[test]
fn a_named_member_that_is_killed_gets_its_partitions_back_on_restart() {
    let zone = Zone::new(&services(), "named");
    let settings = ["kafka.client.session.timeout.ms=1200000", "kafka.client.max.poll.interval.ms=1200000"];
    a_group_of_two_survives_a_kill(&zone, &settings, true);
}

/// Two groups share nothing: each owns every partition all the time.
#[test]
fn two_groups_that_own_every_partition_write_each_event_once() {
    let zone = Zone::new(&services(), "rivals");
    let mut expected = zone.land("first", 20_000, "ndjson", 33);
    zone.ingest().args(&["--once"]).report();
    let logs = tempfile::tempdir().unwrap();
    let groups = [zone.topic.clone(), format!("{}-rival", zone.topic)];
    // Batches of different lengths, so that the two do not do the same.
    let mut rivals = [(&groups[0], 300), (&groups[1], 370)].map(|(group, rows)| {
        zone.distribute()
            .set(&format!("kafka.group={group}"))
            .set(&format!("flush.max_rows={rows}"))
            .set("flush.max_age=300ms")
            .start(&logs.path().join(group))
    });
    let output = |group: &str| std::fs::read_to_string(logs.path().join(group)).unwrap_or_default();
    wait_until("they have been in each other's way", || {
        assert!(rivals.iter_mut().all(|rival| !rival.has_ended()), "{}{}", output(&groups[0]), output(&groups[1]));
        groups.iter().any(|group| output(group).contains("another owner was faster"))
    });
    expected += zone.land("second", 10_000, "ndjson", 34);
    zone.ingest().args(&["--once"]).report();
    wait_until("everything is written, by whomever", || {
        for (rival, group) in rivals.iter_mut().zip(&groups) {
            assert!(!rival.has_ended(), "{}", output(group));
        }
        let audit = zone.verify().args(&["--output", "json"]).output();
        let audit: serde_json::Value = serde_json::from_slice(&audit.stdout).unwrap_or_default();
        assert_eq!(audit["findings"], serde_json::json!([]), "sound at every moment: {audit}");
        let partitions = audit["partitions"].as_array().unwrap();
        partitions.iter().map(|partition| partition["rows"].as_u64().unwrap()).sum::<u64>() == expected
    });
    for rival in &mut rivals {
        rival.signal("TERM");
        assert_eq!(rival.wait_for_exit(), Some(0));
    }
    assert_eq!(unique_keys(&zone.trusted.1).len() as u64, expected);
    zone.assert_sound();
    zone.verify().set(&format!("kafka.group={}", groups[1])).report();
}
