//! Names at the length limit, and names that collide in `processed/`.

use common::event::civil_from_micros;

use crate::harness::{Zone, event, tree};

/// Contents of all files in `processed/`, sorted.
fn processed(zone: &Zone) -> Vec<String> {
    let root = zone.landing().join("processed");
    let mut contents: Vec<String> =
        tree(&root).iter().map(|path| std::fs::read_to_string(root.join(path)).unwrap()).collect();
    contents.sort();
    contents
}

#[tokio::test]
async fn the_longest_names_are_archived_as_often_as_they_come() {
    let zone = Zone::new().await;
    let long = |letter: &str| letter.repeat(250) + ".json";
    let wide = "ä".repeat(125) + ".json";
    // With `pending/` a key of 1,024 bytes, which leaves no room for the day.
    let folder = vec!["f".repeat(200); 4].join("/");
    let deep = format!("{folder}/{}", "x".repeat(1_024 - "pending/".len() - folder.len() - 1));
    let mut expected = Vec::new();
    for round in 0..3 {
        for (number, name) in [long("a"), wide.clone(), deep.clone()].iter().enumerate() {
            let content = event(&format!("{number}-{round}"));
            zone.land(name, &content);
            expected.push(content);
        }
        assert_eq!(zone.ingest().await.files.ingested, 3, "round {round}");
        assert!(tree(&zone.landing().join("pending")).is_empty(), "round {round}");
    }
    expected.sort();
    assert_eq!(processed(&zone), expected);
    let names = tree(&zone.landing().join("processed"));
    assert!(names.iter().all(|name| name.split('/').all(|segment| segment.len() <= 255)), "{names:?}");
    assert_eq!(names.iter().filter(|name| name.ends_with(".json")).count(), 6, "extensions are kept: {names:?}");
}

#[tokio::test]
async fn a_file_and_later_a_folder_of_its_name_are_both_archived_in_either_order() {
    let zone = Zone::new().await;
    let mut expected = Vec::new();
    for (number, name) in ["x", "x/y.json", "x/y.json/z.json", "x", "x/y.json"].into_iter().enumerate() {
        let content = event(&number.to_string());
        zone.land(name, &content);
        expected.push(content);
        assert_eq!(zone.ingest().await.files.ingested, 1, "{name}");
        // The folders stay, and prevent a file of that name.
        std::fs::remove_dir_all(zone.landing().join("pending")).unwrap();
        std::fs::create_dir(zone.landing().join("pending")).unwrap();
    }
    assert_eq!(processed(&zone), expected);
    let day = civil_from_micros(zone.clock.now_ms() * 1_000);
    let first = format!("date={:04}-{:02}-{:02}/x", day.year, day.month, day.day);
    assert!(tree(&zone.landing().join("processed")).contains(&first), "the first one keeps its name");
}
