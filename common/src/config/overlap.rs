//! Places that must not overlap: the landing zone, the trusted zone, the embedded log, and local scratch.
//!
//! Each place owns parts. Its owner reads, moves, rewrites or deletes everything inside a part, so no part may contain
//! another place. Outside its parts a place may contain others, with one exception: no trusted zone contains the
//! landing zone, because deleting the tables to start afresh would delete unread files.
//!
//! | may it lie in … | landing zone | trusted zone | log | scratch |
//! |---|---|---|---|---|
//! | landing zone | | no | no | no |
//! | trusted zone | not in `pending/`, `processed/` | | no | no |
//! | log | not in `pending/`, `processed/` | not in a table or the chain | | no |
//! | scratch | not in `pending/`, `processed/` | not in a table or the chain | no | |
//!
//! No two places are the same. Scratch is checked only if it is configured: the system's temporary folder may contain
//! any place.

use std::io;

use super::Config;
use crate::store::{Location, Place};

const LANDING_PARTS: [&str; 2] = ["pending", "processed"];
const TRUSTED_PARTS: [&str; 4] = ["events", "rejected", "_commits", "_watermark"];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Landing,
    Trusted,
    Log,
    Scratch,
}

impl Kind {
    fn key(self) -> &'static str {
        match self {
            Self::Landing => "landing.url",
            Self::Trusted => "trusted.url",
            Self::Log => "log.data_dir",
            Self::Scratch => "scratch.dir",
        }
    }

    fn parts(self) -> &'static [&'static str] {
        match self {
            Self::Landing => &LANDING_PARTS,
            Self::Trusted => &TRUSTED_PARTS,
            // The whole place is one part.
            Self::Log | Self::Scratch => &[""],
        }
    }

    /// What happens to everything inside a part.
    fn consequence(self) -> &'static str {
        match self {
            Self::Landing => "everything in it is ingested as events, moved or deleted",
            Self::Trusted => "queries and distributors read everything in it as part of the tables",
            Self::Log => "everything in it is deleted together with the log",
            Self::Scratch => "everything in it may be deleted at any time",
        }
    }
}

struct Part {
    /// The folder inside the root; empty for the root itself.
    name: &'static str,
    place: Place,
}

/// A place, its root and its parts. A part may be a symbolic link to elsewhere.
struct Zone {
    kind: Kind,
    location: Location,
    root: Place,
    parts: Vec<Part>,
}

impl Zone {
    fn resolve(kind: Kind, location: Location) -> io::Result<Self> {
        let part = |name: &&'static str| {
            let inside = if name.is_empty() { location.clone() } else { location.join(name) };
            Ok(Part { name, place: Place::of(&inside)? })
        };
        let parts = kind.parts().iter().map(part).collect::<io::Result<_>>()?;
        Ok(Self { kind, root: Place::of(&location)?, location, parts })
    }

    /// `landing.url ('land')`
    fn named(&self) -> String {
        format!("{} ('{}')", self.kind.key(), self.location)
    }

    /// The name of a part, such as `pending/ of landing.url ('land')`.
    fn part_named(&self, part: &Part) -> String {
        if part.name.is_empty() { self.named() } else { format!("{}/ of {}", part.name, self.named()) }
    }

    /// The root and the parts, each with its name.
    fn bodies(&self) -> impl Iterator<Item = (String, &Place)> {
        let parts = self.parts.iter().map(|part| (self.part_named(part), &part.place));
        std::iter::once((self.named(), &self.root)).chain(parts)
    }
}

/// The reason why two places conflict, if they do.
fn conflict(one: &Zone, other: &Zone) -> Option<String> {
    let (inner_first, outer_first) = ([(one, other), (other, one)], [(other, one), (one, other)]);
    let same = one.root.is_within(&other.root) && other.root.is_within(&one.root);
    if same {
        return Some(format!("{} is the same place as {}", other.named(), one.named()));
    }
    for (inner, outer) in outer_first {
        for part in &outer.parts {
            if let Some((name, _)) = inner.bodies().find(|(_, place)| place.is_within(&part.place)) {
                return Some(format!("{name} lies inside {}: {}", outer.part_named(part), outer.kind.consequence()));
            }
        }
    }
    inner_first.into_iter().find_map(|(inner, outer)| {
        let is_refused = (inner.kind, outer.kind) == (Kind::Landing, Kind::Trusted);
        let (name, _) = inner.bodies().find(|(_, place)| is_refused && place.is_within(&outer.root))?;
        Some(format!(
            "{name} lies inside {}: deleting the tables would delete files that were never read",
            outer.named()
        ))
    })
}

/// The likely intention behind the later of two places. `zones` are all of them.
fn meant(one: &Zone, other: &Zone, zones: &[Zone]) -> String {
    let outermost = if other.root.is_within(&one.root) { one } else { other };
    match one.kind.max(other.kind) {
        Kind::Landing | Kind::Trusted => {
            let beside = outermost.location.join("trusted");
            let such_as =
                if is_free_for_tables(&beside, zones) { format!(", such as '{beside}'") } else { String::new() };
            format!("give the tables a place of their own{such_as}")
        }
        Kind::Log => {
            "give the log a folder of its own with --data-dir, or leave that out to have it with the tables".to_owned()
        }
        Kind::Scratch => {
            "give scratch.dir a folder of its own, or leave it out for the system's temporary folder".to_owned()
        }
    }
}

/// Whether the tables could be there. Links and mounts may lead a name that looks free into another place.
fn is_free_for_tables(location: &Location, zones: &[Zone]) -> bool {
    let Ok(tables) = Zone::resolve(Kind::Trusted, location.clone()) else { return false };
    let mut others = zones.iter().filter(|zone| zone.kind != Kind::Trusted);
    conflicts_within(&tables).is_empty() && others.all(|zone| conflict(zone, &tables).is_none())
}

/// Reports a part whose symbolic link leads into another part of the same place.
fn conflicts_within(zone: &Zone) -> Vec<String> {
    let pairs = zone.parts.iter().flat_map(|inner| zone.parts.iter().map(move |outer| (inner, outer)));
    let distinct = pairs.filter(|(inner, outer)| inner.name != outer.name && inner.place.is_within(&outer.place));
    distinct
        .map(|(inner, outer)| {
            format!(
                "{}: {}/ lies inside {}/ of '{}', by a symbolic link: {}",
                zone.kind.key(),
                inner.name,
                outer.name,
                zone.location,
                zone.kind.consequence()
            )
        })
        .take(1)
        .collect()
}

fn conflicts(zones: &[Zone]) -> Vec<String> {
    let mut found: Vec<String> = zones.iter().flat_map(conflicts_within).collect();
    for (index, other) in zones.iter().enumerate() {
        for one in &zones[..index] {
            found.extend(conflict(one, other).map(|conflict| format!("{conflict}; {}", meant(one, other, zones))));
        }
    }
    found
}

impl Config {
    /// Returns the overlaps that are not allowed, each with the likely intention. Roles refuse to start while there are
    /// any. Only reads folders.
    #[must_use]
    pub fn overlaps(&self) -> Vec<String> {
        let folder = |path: &std::path::PathBuf| Location::Local(path.clone());
        let places = [
            (Kind::Landing, self.landing.location.clone()),
            (Kind::Trusted, self.trusted.location.clone()),
            (Kind::Log, self.data_dir().map(Location::Local)),
            (Kind::Scratch, self.scratch_dir.as_ref().map(folder)),
        ];
        let given = places.into_iter().filter_map(|(kind, location)| Some((kind, location?)));
        let zones = given.map(|(kind, location)| Zone::resolve(kind, location)).collect::<io::Result<Vec<_>>>();
        match zones {
            Ok(mut zones) => {
                let of_log = zones.iter().position(|zone| zone.kind == Kind::Log && self.log.data_dir.is_none());
                let default_log = of_log.map(|at| zones.remove(at));
                let mut found = conflicts(&zones);
                // The default log folder follows the tables, so it would only repeat their conflicts.
                if found.is_empty() {
                    zones.extend(default_log);
                    found = conflicts(&zones);
                }
                found
            }
            Err(error) => vec![format!("the working directory of relative paths cannot be determined: {error}")],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use proptest::prelude::*;

    use super::super::ConfigTree;
    use super::*;

    fn config(places: &[(&str, &str)]) -> Config {
        let mut tree = ConfigTree::default();
        for (key, text) in places {
            tree.set(key, text, "--set");
        }
        tree.check().unwrap_or_else(|errors| panic!("{places:?}: {errors}"))
    }

    fn overlaps(places: &[(&str, &str)]) -> Vec<String> {
        config(places).overlaps()
    }

    const LANDING: &str = "landing.url";
    const TRUSTED: &str = "trusted.url";
    const LOG: &str = "log.data_dir";
    const SCRATCH: &str = "scratch.dir";

    #[test]
    fn places_beside_each_other_get_along() {
        for good in [
            &[(LANDING, "land"), (TRUSTED, "trusted"), (LOG, "log"), (SCRATCH, "scratch")][..],
            &[(LANDING, "land"), (TRUSTED, "land/trusted")],
            &[(LANDING, "land"), (TRUSTED, "land2")],
            &[(LANDING, "land"), (TRUSTED, "land/pending2")],
            &[(LANDING, "land/pending"), (TRUSTED, "land/trusted")],
            &[(LANDING, "land"), (LOG, "land/log"), (TRUSTED, "t")],
            &[(TRUSTED, "t"), (LOG, "t/_log")],
            &[(TRUSTED, "t"), (LOG, "t/state/log"), (SCRATCH, "t/_scratch")],
            &[(LANDING, "s3://lake/land"), (TRUSTED, "s3://lake/trusted")],
            &[(LANDING, "s3://lake"), (TRUSTED, "s3://lake/trusted")],
            &[(LANDING, "s3://lake/land"), (TRUSTED, "s3://lake/land2")],
            &[(LANDING, "s3://one"), (TRUSTED, "s3://two")],
            &[(LANDING, "s3://lake"), (TRUSTED, "lake")],
            &[(TRUSTED, "s3://lake/x"), (SCRATCH, "scratch")],
            &[(LANDING, "land")],
            &[],
        ] {
            assert_eq!(overlaps(good), Vec::<String>::new(), "{good:?}");
        }
    }

    #[test]
    fn places_inside_each_other_are_refused_with_what_was_probably_meant() {
        for (bad, parts) in [
            (
                &[(LANDING, "land"), (TRUSTED, "land/pending/trusted")][..],
                &[
                    "trusted.url ('land/pending/trusted') lies inside pending/ of landing.url ('land')",
                    "such as 'land/trusted'",
                ][..],
            ),
            (&[(LANDING, "./land/"), (TRUSTED, "land/x/../pending")], &["inside pending/ of landing.url"]),
            (&[(LANDING, "land"), (TRUSTED, "land/processed/date=2021-01-14")], &["inside processed/ of landing.url"]),
            (
                &[(LANDING, "x"), (TRUSTED, "./x")],
                &["trusted.url ('./x') is the same place as landing.url ('x')", "such as 'x/trusted'"],
            ),
            (
                &[(LANDING, "zone/land"), (TRUSTED, "zone")],
                &["landing.url ('zone/land') lies inside trusted.url", "such as 'zone/trusted'"],
            ),
            (
                &[(LANDING, "t/events/x"), (TRUSTED, "t")],
                &["landing.url ('t/events/x') lies inside events/ of trusted.url"],
            ),
            (
                &[(LANDING, "land"), (TRUSTED, "t"), (LOG, "land/pending")],
                &["log.data_dir ('land/pending') lies inside", "--data-dir"],
            ),
            (&[(LANDING, "land"), (LOG, "land")], &["log.data_dir ('land') is the same place as landing.url"]),
            (&[(LANDING, "log/land"), (LOG, "log")], &["landing.url ('log/land') lies inside log.data_dir ('log')"]),
            (&[(TRUSTED, "t"), (LOG, "t")], &["is the same place as trusted.url ('t')", "leave that out"]),
            (&[(TRUSTED, "t"), (LOG, "t/events/log")], &["inside events/ of trusted.url"]),
            (&[(TRUSTED, "t"), (LOG, "t/_commits")], &["inside _commits/ of trusted.url"]),
            (&[(TRUSTED, "t"), (LOG, "t/_watermark/x")], &["inside _watermark/"]),
            (&[(TRUSTED, "log/t"), (LOG, "log")], &["trusted.url ('log/t') lies inside log.data_dir"]),
            (&[(SCRATCH, "s"), (LOG, "s")], &["is the same place as log.data_dir", "temporary folder"]),
            (
                &[(SCRATCH, "s"), (LOG, "s/log")],
                &["log.data_dir ('s/log') lies inside scratch.dir ('s'): everything in it may be deleted"],
            ),
            (
                &[(SCRATCH, "t/_log/s"), (TRUSTED, "t")],
                &["scratch.dir ('t/_log/s') lies inside log.data_dir ('t/_log')"],
            ),
            (
                &[(SCRATCH, "land/pending/s"), (LANDING, "land")],
                &["scratch.dir ('land/pending/s') lies inside pending/"],
            ),
            (&[(SCRATCH, "t/rejected"), (TRUSTED, "t")], &["lies inside rejected/ of trusted.url"]),
            (
                &[(LANDING, "s3://lake/zone"), (TRUSTED, "s3://lake/zone/pending/t/")],
                &["inside pending/ of landing.url ('s3://lake/zone')", "such as 's3://lake/zone/trusted'"],
            ),
            (&[(LANDING, "s3://lake"), (TRUSTED, "s3://lake/processed")], &["inside processed/"]),
            (
                &[(LANDING, "s3://lake"), (TRUSTED, "s3://lake/")],
                &["is the same place as landing.url", "such as 's3://lake/trusted'"],
            ),
            (
                &[(LANDING, "s3://lake/land"), (TRUSTED, "s3://lake")],
                &["landing.url ('s3://lake/land') lies inside trusted.url"],
            ),
        ] {
            let found = overlaps(bad);
            for part in parts {
                assert!(found.iter().any(|error| error.contains(part)), "{bad:?}: {part:?} is missing in {found:#?}");
            }
        }
    }

    #[test]
    fn each_overlap_is_reported() {
        let all = [(LANDING, "x"), (TRUSTED, "x"), (LOG, "x/pending"), (SCRATCH, "x/events")];
        assert_eq!(overlaps(&all).len(), 3, "{:#?}", overlaps(&all));
        let default_log = [(LANDING, "land"), (TRUSTED, "land/pending/t")];
        assert_eq!(overlaps(&default_log).len(), 1, "{:#?}", overlaps(&default_log));
    }

    fn text(path: &Path) -> &str {
        path.to_str().unwrap_or_default()
    }

    #[test]
    fn links_do_not_hide_an_overlap() {
        let root = tempfile::tempdir().unwrap();
        let (land, trusted) = (root.path().join("land"), root.path().join("trusted"));
        std::fs::create_dir_all(land.join("pending")).unwrap();
        symlink(land.join("pending/t"), &trusted).unwrap();
        let zones = [(LANDING, text(&land)), (TRUSTED, text(&trusted))];
        assert!(overlaps(&zones).join("").contains("inside pending/ of landing.url"), "{:?}", overlaps(&zones));
        // This time a part is a symbolic link, not the place.
        std::fs::remove_file(&trusted).unwrap();
        std::fs::create_dir_all(trusted.join("events")).unwrap();
        assert_eq!(overlaps(&zones), Vec::<String>::new());
        std::fs::remove_dir(land.join("pending")).unwrap();
        symlink(trusted.join("events"), land.join("pending")).unwrap();
        assert!(overlaps(&zones).join("").contains("inside pending/ of landing.url"), "{:?}", overlaps(&zones));
        std::fs::remove_file(land.join("pending")).unwrap();
        symlink(trusted.join("other"), land.join("pending")).unwrap();
        assert!(overlaps(&zones).join("").contains("pending/ of landing.url"), "{:?}", overlaps(&zones));
    }

    #[test]
    fn no_place_is_suggested_that_would_be_refused_as_well() {
        let root = tempfile::tempdir().unwrap();
        let land = root.path().join("land");
        std::fs::create_dir_all(land.join("pending/t")).unwrap();
        let zones = [(LANDING, text(&land)), (TRUSTED, text(&land))];
        assert!(overlaps(&zones).join("").contains("such as"), "{:?}", overlaps(&zones));
        symlink("pending/t", land.join("trusted")).unwrap();
        let found = overlaps(&zones).join("");
        assert!(found.ends_with("give the tables a place of their own"), "{found}");
        let log = land.join("trusted2");
        std::fs::remove_file(land.join("trusted")).unwrap();
        symlink(&log, land.join("trusted")).unwrap();
        let found = overlaps(&[(LANDING, text(&land)), (TRUSTED, text(&land)), (LOG, text(&log))]).join("");
        assert!(!found.contains("such as"), "{found}");
    }

    #[test]
    fn archived_files_are_not_moved_into_the_folder_that_is_read() {
        let land = tempfile::tempdir().unwrap();
        std::fs::create_dir(land.path().join("pending")).unwrap();
        symlink("pending/done", land.path().join("processed")).unwrap();
        let found = overlaps(&[(LANDING, text(land.path()))]);
        assert!(found.join("").contains("processed/ lies inside pending/"), "{found:?}");
    }

    proptest! {
        /// An independent statement of the module's table, by names alone.
        #[test]
        fn the_table_of_the_module_holds_for_any_paths(
            landing in "(a|b|pending|events|_commits)(/(a|b|pending|processed|events|_commits)){0,2}",
            trusted in "(a|b|pending|events|_commits)(/(a|b|pending|processed|events|_commits)){0,2}",
            log in "(a|b|pending|events|_commits)(/(a|b|pending|processed|events|_commits)){0,2}",
        ) {
            let within = |inner: &str, outer: &str| format!("{inner}/").starts_with(&format!("{outer}/"));
            let part = |inner: &str, outer: &str, names: &[&str]| names.iter().any(|name| within(inner, &format!("{outer}/{name}")));
            let landing_trusted = within(&landing, &trusted) || landing == trusted || part(&trusted, &landing, &LANDING_PARTS);
            let landing_log = within(&landing, &log) || part(&log, &landing, &LANDING_PARTS);
            let trusted_log = within(&trusted, &log) || part(&log, &trusted, &TRUSTED_PARTS);
            let wanted = [landing_trusted, landing_log, trusted_log].into_iter().filter(|refused| *refused).count();
            let at = |path: &str| format!("/no-such-folder/{path}");
            let found = overlaps(&[(LANDING, &at(&landing)), (TRUSTED, &at(&trusted)), (LOG, &at(&log))]);
            prop_assert_eq!(found.len(), wanted, "{:#?}", found);
        }
    }
}
