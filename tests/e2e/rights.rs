//! Kafka's ACLs: a missing right is named when a role starts, and by `check`.

use std::process::Output;
use std::time::{Duration, Instant};

use crate::harness::{Ed, Services};
use crate::kafka_s3::Zone;

/// A broker that asks its ACLs about every resource that has any.
const PROPERTIES: [&str; 2] = [
    "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found=true",
];
/// Of clients without authentication.
const EVERYBODY: &str = "User:ANONYMOUS";
/// Well below the time-outs by which a missing right used to show.
const AT_ONCE: Duration = Duration::from_secs(12);

fn acl(services: &Services, args: &[&str]) {
    services.kafka_tool("org.apache.kafka.tools.AclCommand", args);
}

/// Everything on the resource is permitted but `operation`, while `work` runs.
fn without<T>(services: &Services, resource: &[&str], operation: &str, work: impl FnOnce() -> T) -> T {
    let allow = [&["--add", "--allow-principal", EVERYBODY, "--operation", "All"], resource].concat();
    let deny = [&["--add", "--deny-principal", EVERYBODY, "--operation", operation], resource].concat();
    acl(services, &allow);
    acl(services, &deny);
    let outcome = work();
    acl(services, &[&["--remove", "--force"], resource].concat());
    outcome
}

fn refusal(role: Ed, code: i32) -> String {
    let begun = Instant::now();
    let Output { status, stdout, stderr } = role.output();
    let said = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(code), "{said}");
    assert!(begun.elapsed() < AT_ONCE, "after {:?}: {said}", begun.elapsed());
    said
}

#[test]
fn a_missing_right_is_named_at_the_start_with_operation_resource_and_setting() {
    let run_dir = tempfile::tempdir().unwrap();
    let own = Services::own_with(run_dir.path(), &PROPERTIES);
    let services = &own.services;
    let zone = Zone::new(services, "rights");
    zone.land("files", 500, "ndjson", 71);
    let (topic, ledger) = (zone.topic.as_str(), format!("{}.ledger", zone.topic));
    let ingestors = format!("event-distributor-ingest-{ledger}");
    let check = |zones: [&str; 2]| {
        Ed::new(&["check", "--brokers", &services.kafka])
            .args(&zones)
            .set(&format!("log.events_topic={topic}"))
            .set(&format!("kafka.group={topic}"))
            .s3(services)
    };
    let (landing, trusted) = (["--landing", &zone.landing.0], ["--trusted", &zone.trusted.0]);
    zone.ingest().args(&["--once"]).report();
    zone.distribute().args(&["--once"]).report();

    let ingest = || zone.ingest().args(&["--once"]);
    let distribute = || zone.distribute().args(&["--once"]);
    let (of_ingest, of_distribute) = (true, false);
    let direct = "event-distributor-direct";
    let cases = [
        ("--topic", topic, "Write", of_ingest, format!("Write on topic '{topic}' (log.events_topic)")),
        ("--topic", topic, "Read", of_distribute, format!("Read on topic '{topic}' (log.events_topic)")),
        ("--topic", &ledger, "Read", of_ingest, format!("Read on topic '{ledger}' (named after")),
        ("--group", topic, "Describe", of_distribute, format!("Read on group '{topic}' (kafka.group)")),
        ("--group", &ingestors, "Read", of_ingest, format!("Read on group '{ingestors}' (named after")),
        ("--group", direct, "Describe", of_distribute, format!("Describe on group '{direct}'")),
    ];
    for (kind, name, operation, is_ingest, expected) in cases {
        without(services, &[kind, name], operation, || {
            let (role, zones) = if is_ingest { (ingest(), landing) } else { (distribute(), trusted) };
            for (command, code) in [(role, 1), (check(zones), 2)] {
                let said = refusal(command, code);
                assert!(said.contains(&expected), "without {operation} on {name}: {said}");
            }
        });
    }
    without(services, &["--transactional-id", &ingestors, "--resource-pattern-type", "prefixed"], "Write", || {
        let said = refusal(ingest(), 1);
        assert!(said.contains(&format!("'{ingestors}-")) && said.contains("it takes Write on the trans"), "{said}");
    });
    // With all rights back, everything works.
    for zones in [landing, trusted] {
        assert_eq!(check(zones).output().status.code(), Some(0));
    }
    ingest().report();
    distribute().report();
}
