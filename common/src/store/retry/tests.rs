use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::store::LocalStore;

fn store(patience: Duration) -> RetryingStore {
    let policy = RetryPolicy {
        patience: Some(patience),
        wait_for_operator: false,
        shutdown: Shutdown::new(),
        on_retry: Arc::new(|_| {}),
    };
    RetryingStore::new(Arc::new(LocalStore::new("unused".into())), policy)
}

fn error(kind: StoreErrorKind, key: &str) -> StoreError {
    StoreError::new(kind, "rename", key, "injected failure")
}

#[tokio::test]
async fn only_temporary_failures_of_a_batch_are_repeated() {
    let calls = Mutex::new(Vec::new());
    let call = |keys: Vec<&'static str>| {
        calls.lock().unwrap().push(keys.clone());
        let count = calls.lock().unwrap().len();
        let answer = move |key: &'static str| match key {
            "wrong" => Err(error(StoreErrorKind::InvalidKey, key)),
            "slow" if count < 3 => Err(error(StoreErrorKind::Transient, key)),
            "busy" if count < 2 => Err(error(StoreErrorKind::Transient, key)),
            key => Ok(format!("{key} at {count}")),
        };
        async move { keys.into_iter().map(answer).collect() }
    };
    let entries = ["a", "slow", "wrong", "busy", "b"];
    let answers = store(Duration::from_secs(60)).repeat_batch(&entries, "a", call).await;
    let texts: Vec<_> = answers.into_iter().map(|answer| answer.map_err(|error| error.kind)).collect();
    let ok = |text: &str| Ok(text.to_owned());
    let expected = [ok("a at 1"), ok("slow at 3"), Err(StoreErrorKind::InvalidKey), ok("busy at 2"), ok("b at 1")];
    assert_eq!(texts, expected);
    assert_eq!(*calls.lock().unwrap(), [entries.to_vec(), vec!["slow", "busy"], vec!["slow"]]);
}

#[tokio::test]
async fn when_the_patience_is_over_each_entry_keeps_its_own_answer() {
    let call = |keys: Vec<&'static str>| async move {
        let answer = |key| if key == "a" { Ok(key) } else { Err(error(StoreErrorKind::Transient, key)) };
        keys.into_iter().map(answer).collect()
    };
    let answers = store(Duration::ZERO).repeat_batch(&["a", "b", "c"], "a", call).await;
    let keys: Vec<_> = answers.into_iter().map(|answer| answer.map_err(|error| error.key)).collect();
    assert_eq!(keys, [Ok("a"), Err("b".to_owned()), Err("c".to_owned())]);
}

/// A call that takes time, and fails until it is permitted to succeed.
struct Ailing {
    store: RetryingStore,
    is_well: AtomicBool,
    calls: AtomicUsize,
}

impl Ailing {
    fn new(health: &Health) -> Arc<Self> {
        let policy = RetryPolicy {
            patience: None,
            wait_for_operator: true,
            shutdown: Shutdown::new(),
            on_retry: Arc::new(|_| {}),
        };
        let (inner, on_answer) = (Arc::new(LocalStore::new("unused".into())), Arc::new(|_, _| {}));
        let store = RetryingStore::reporting(inner, policy, health.clone(), "store", on_answer);
        Arc::new(Self { store, is_well: AtomicBool::new(false), calls: AtomicUsize::new(0) })
    }

    async fn call(self: Arc<Self>, key: String) {
        let call = |keys: Vec<String>| {
            let ailing = self.clone();
            async move {
                ailing.calls.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(5)).await;
                let is_well = ailing.is_well.load(Ordering::SeqCst);
                let answer = |key: String| if is_well { Ok(()) } else { Err(error(StoreErrorKind::Denied, &key)) };
                keys.into_iter().map(answer).collect()
            }
        };
        let answers = self.store.repeat_batch(std::slice::from_ref(&key), &key, call).await;
        assert!(answers[0].is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn many_calls_together_try_again_a_few_times_a_second_and_follow_each_other_once_it_works() {
    const CALLS: u32 = 200;
    const SECONDS: u32 = 120;
    let ailing = Ailing::new(&Health::default());
    let calls: Vec<_> = (0..CALLS).map(|number| tokio::spawn(ailing.clone().call(format!("key {number}")))).collect();
    tokio::time::sleep(Duration::from_secs(SECONDS.into())).await;
    let tries = u32::try_from(ailing.calls.load(Ordering::SeqCst)).unwrap();
    let (least, most) = (CALLS + SECONDS * RETRIES_PER_SECOND, CALLS + RETRY_BURST + SECONDS * RETRIES_PER_SECOND);
    assert!((least..=most).contains(&tries), "{tries} tries, not {least} to {most}");
    ailing.is_well.store(true, Ordering::SeqCst);
    let mended = Instant::now();
    for call in calls {
        call.await.unwrap();
    }
    assert!(mended.elapsed() < Duration::from_secs(15), "{:?} for the back-off and the queue", mended.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_for_long_is_reported_until_it_works() {
    let health = Health::default();
    let ailing = Ailing::new(&health);
    let calls = ["a", "b"].map(|key| tokio::spawn(ailing.clone().call(key.to_owned())));
    tokio::time::sleep(TOLERATED_OUTAGE / 2).await;
    assert!(health.problems().is_empty(), "a short failure was reported");
    tokio::time::sleep(TOLERATED_OUTAGE * 3).await;
    assert!(health.problems()["store"].contains("injected failure"), "{:?}", health.problems());
    // A call that is given up no longer fails; the other one still does.
    let [given_up, call] = calls;
    given_up.abort();
    assert!(given_up.await.is_err_and(|error| error.is_cancelled()));
    assert!(!health.problems().is_empty());
    ailing.is_well.store(true, Ordering::SeqCst);
    call.await.unwrap();
    assert!(health.problems().is_empty(), "{:?}", health.problems());
}

/// Yields a body in pieces, and fails at every second one.
struct Breaking {
    body: Bytes,
    is_broken: bool,
}

#[async_trait]
impl ObjectReader for Breaking {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        if std::mem::replace(&mut self.is_broken, true) {
            return Err(error(StoreErrorKind::Transient, "body"));
        }
        let length = self.body.len().min(3);
        Ok(Some(self.body.split_to(length)).filter(|piece| !piece.is_empty()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_continues_there_in_the_same_version() {
    let folder = tempfile::tempdir().unwrap();
    let local: Arc<dyn Store> = Arc::new(LocalStore::new(folder.path().to_owned()));
    let body = Bytes::from_static(b"0123456789");
    local.put("key", body.clone(), PutCondition::None, &Metadata::new()).await.unwrap();
    let policy = store(Duration::from_secs(60)).shared.policy.clone();
    let shared = RetryingStore::new(local.clone(), policy).shared;
    let meta = local.head("key").await.unwrap().unwrap();
    let breaking = || Box::new(Breaking { body: body.slice(2..), is_broken: false });
    let options = GetOptions { range: Some(2..99), if_version: None };
    let mut reader = RetryingReader::new(shared.clone(), &meta, &options, breaking());
    let mut read = Vec::new();
    while let Some(piece) = reader.next().await.unwrap() {
        read.extend_from_slice(&piece);
    }
    assert_eq!(read, b"23456789");
    let mut reader = RetryingReader::new(shared, &meta, &options, breaking());
    assert_eq!(reader.next().await.unwrap().as_deref(), Some(b"234".as_slice()));
    local.put("key", Bytes::from_static(b"another body"), PutCondition::None, &Metadata::new()).await.unwrap();
    assert_eq!(reader.next().await.unwrap_err().kind, StoreErrorKind::VersionMismatch);
}

#[tokio::test]
async fn the_time_of_answers_is_reported_by_operation() {
    let folder = tempfile::tempdir().unwrap();
    let policy =
        RetryPolicy { patience: None, wait_for_operator: false, shutdown: Shutdown::new(), on_retry: Arc::new(|_| {}) };
    let reported = Arc::new(Mutex::new(Vec::new()));
    let on_answer = reported.clone();
    let on_answer = Arc::new(move |operation, _| on_answer.lock().unwrap().push(operation));
    let inner = Arc::new(LocalStore::new(folder.path().to_owned()));
    let store = RetryingStore::reporting(inner, policy, Health::default(), "store", on_answer);
    assert!(store.head("a").await.unwrap().is_none());
    store.put("a", Bytes::from_static(b"x"), PutCondition::None, &Metadata::new()).await.unwrap();
    store.list(&ListOptions::default()).await.unwrap();
    assert_eq!(*reported.lock().unwrap(), ["head", "put", "list"]);
}
