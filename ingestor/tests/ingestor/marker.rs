//! The landing zone's marker file.

use std::path::Path;

use common::shutdown::Shutdown;

use crate::harness::{Zone, event, run, tree, wait_until};

async fn refusal(make: impl Fn(&Path)) -> String {
    let zone = Zone::new().await;
    zone.land("x.json", event("x"));
    make(&zone.landing().join("landing.toml"));
    let error = run(&zone.ingestor()).await.unwrap_err().to_string();
    assert_eq!(tree(&zone.landing().join("pending")), ["x.json"], "nothing was done: {error}");
    assert!(zone.values().await.is_empty());
    error
}

#[tokio::test]
async fn a_marker_that_cannot_be_understood_is_refused_with_the_reason_whatever_stands_there() {
    let long = "# ".to_owned() + &"x".repeat(100_000);
    let wrong = refusal(|path| std::fs::write(path, "archiv = 1").unwrap()).await;
    assert!(wrong.contains("landing.toml") && wrong.contains("archiv"), "{wrong}");
    let huge = refusal(|path| std::fs::write(path, &long).unwrap()).await;
    assert!(huge.contains("landing.toml") && huge.contains("more than the limit of 65536"), "{huge}");
    let binary = refusal(|path| std::fs::write(path, [0xff, 0xfe]).unwrap()).await;
    assert!(binary.contains("landing.toml") && binary.contains("UTF-8"), "{binary}");
    let folder = refusal(|path| std::fs::create_dir(path).unwrap()).await;
    assert!(folder.contains("landing.toml") && folder.contains("a folder"), "{folder}");
    let link = refusal(|path| std::os::unix::fs::symlink("/dev/zero", path).unwrap()).await;
    assert!(link.contains("landing.toml") && link.contains("symbolic link"), "{link}");
    let inside = refusal(|path| {
        std::fs::write(path.with_file_name("mounted.toml"), "archive = \"leave\"").unwrap();
        std::os::unix::fs::symlink("mounted.toml", path).unwrap();
    })
    .await;
    assert!(inside.contains("landing.toml") && inside.contains("symbolic link"), "{inside}");
    let tag = refusal(|path| std::fs::write(path, "archive = \"tag\"").unwrap()).await;
    assert!(tag.contains("landing.toml: archive mode 'tag' needs an S3 bucket"), "{tag}");
    let fifo = refusal(|path| {
        let status = std::process::Command::new("mkfifo").arg(path).status().unwrap();
        assert!(status.success());
    })
    .await;
    assert!(fifo.contains("landing.toml") && fifo.contains("special file"), "{fifo}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_waits_until_the_marker_is_put_right() {
    for wrong in ["archive = 7", "archive = \"tag\""] {
        waits_until_the_marker_is_put_right(wrong).await;
    }
}

async fn waits_until_the_marker_is_put_right(wrong: &str) {
    let zone = Zone::new().await;
    zone.land("x.json", event("x"));
    let marker = zone.landing().join("landing.toml");
    std::fs::write(&marker, wrong).unwrap();
    let mut ingestor = zone.ingestor();
    ingestor.settings.once = false;
    let (health, metrics, shutdown) = (ingestor.health.clone(), ingestor.metrics.clone(), Shutdown::new());
    let running = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { ingestor.run(&shutdown).await }
    });
    let reported = || health.problems().values().any(|reason| reason.contains("landing.toml"));
    wait_until("it is not ready, and says why", reported).await;
    std::fs::write(&marker, "archive = \"leave\"").unwrap();
    wait_until("it goes on", || metrics.report().files.ingested == 1).await;
    shutdown.trigger();
    running.await.unwrap().unwrap();
    assert_eq!(tree(&zone.landing().join("pending")), ["x.json"], "it is left");
}
