//! Several distributors on one topic, one of which sleeps through its own replacement.

use crate::harness::{Process, cuts, services, unique_keys, wait_until};
use crate::kafka_s3::Zone;

/// Stopped in the middle of its batches, a distributor wakes up as an owner of what others own by now: what it still puts
/// and commits changes nothing.
#[test]
fn a_distributor_that_was_stopped_and_wakes_up_after_its_heir_can_do_no_harm() {
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
    wait_until("it is in the middle", || cuts(&zone.trusted.1) >= 4);
    sleeper.signal("STOP");
    let before = cuts(&zone.trusted.1);
    let mut heir = start("heir");
    wait_until("the heir goes on", || cuts(&zone.trusted.1) > before + 4);
    // Records that the sleeper has never seen, so that both have something to write.
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
