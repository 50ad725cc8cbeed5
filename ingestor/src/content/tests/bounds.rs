//! Bounds on the output and the work of hostile files.

use super::*;

const ONE_MB: usize = 1_000_000;

#[test]
fn bombs_come_out_in_bounded_pieces() {
    const SIZE: usize = 100 * 1024 * 1024;
    for compression in COMPRESSIONS {
        let file = encode(compression, &vec![0; SIZE]);
        assert!(file.len() < SIZE / 900, "{compression:?}: not much of a bomb");
        block_on(async {
            let mut content = Content::open(pieces(&file, &[512 * 1024]), LIMITS).await.unwrap();
            let (mut total, mut count) = (0, 0);
            while let Some(piece) = content.next().await.unwrap() {
                assert!(piece.len() <= PIECE_BYTES, "{compression:?}: a piece of {} bytes", piece.len());
                total += piece.len();
                count += 1;
            }
            assert_eq!(total, SIZE);
            assert!(count < SIZE / PIECE_BYTES + 10, "{compression:?}: {count} pieces are too many small ones");
        });
    }
}

#[test]
fn a_file_that_grows_by_more_than_the_ratio_is_refused_but_no_small_one() {
    let limits = ExpansionLimits { max_ratio: 100, ..LIMITS };
    for compression in COMPRESSIONS {
        let small = encode(compression, &vec![b' '; ONE_MB - 1]);
        assert_eq!(block_on(read_within(pieces(&small, &[100]), limits)).unwrap().1.len(), ONE_MB - 1);
        let (whole, message) = rejected(&encode(compression, &vec![b' '; 3 * ONE_MB]), limits);
        assert!(message.contains("landing.max_expansion_ratio = 100"), "{compression:?}: {message}");
        assert!(whole.len() < ONE_MB + 2 * PIECE_BYTES, "{compression:?}: {} bytes came out first", whole.len());
    }
    let usual = encode(Compression::Gzip, &sample(60_000));
    assert!(block_on(read_within(pieces(&usual, &[5_000]), limits)).is_ok());
}

#[test]
fn both_levels_count_for_the_limits() {
    let body = sample(40_000);
    let inner = encode(Compression::Gzip, &body);
    let file = encode(Compression::Gzip, &inner);
    let limits = |max_bytes| ExpansionLimits { max_bytes, ..LIMITS };
    let all = (body.len() + inner.len()) as u64;
    assert!(block_on(read_within(pieces(&file, &[5_000]), limits(all))).is_ok());
    let (_, message) = rejected(&file, limits(all - 1));
    assert!(message.contains(&format!("landing.max_expanded_bytes = {}", all - 1)), "{message}");
    // A bomb in the outer level whose inner level has no output.
    let bomb = [encode(Compression::Gzip, b""), vec![0; 5 * ONE_MB]].concat();
    let (_, message) = rejected(&encode(Compression::Gzip, &bomb), ExpansionLimits { max_ratio: 100, ..LIMITS });
    assert!(message.contains("landing.max_expansion_ratio"), "{message}");
}

/// Files that keep a decoder busy: much output, no output, and members that each have to be set up.
fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    let bombs = COMPRESSIONS.map(|compression| ("a bomb", encode(compression, &vec![0; 20 * ONE_MB])));
    let empty = COMPRESSIONS.map(|compression| ("empty members", encode(compression, b"").repeat(3_000)));
    let nested = COMPRESSIONS.map(|compression| ("a bomb within", encode(compression, &bombs[0].1)));
    let padding = ("padding", [encode(Compression::Gzip, b"{}"), vec![0; 5 * ONE_MB]].concat());
    let skippable = ("skippable frames", b"\x50\x2a\x4d\x18\x00\x00\x00\x00".repeat(200_000));
    bombs.into_iter().chain(empty).chain(nested).chain([padding, skippable]).collect()
}

#[test]
fn each_step_does_a_bounded_amount_of_work_whatever_the_file() {
    // The most that one call of a codec may add: a piece or the most input, of the most expensive codec.
    const MOST: usize = 512 * 1024 + 2 * 8 * PIECE_BYTES;
    for (what, file) in hostile() {
        let mut levels = Levels::new(LIMITS);
        levels.push(Bytes::from(file));
        let mut steps = 0;
        loop {
            let step = levels.step().unwrap();
            let spent = levels.take_spent();
            assert!(spent <= 2 * MOST, "{what}: a step cost {spent}");
            steps += 1;
            match step {
                Progress::Hungry => levels.finish(),
                Progress::Ended => break,
                Progress::Piece(_) | Progress::Worked => {}
            }
        }
        assert!(steps > 5, "{what}: {steps} steps");
    }
}

#[test]
fn other_tasks_take_turns_with_the_most_hostile_files() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    // One thread: a task that does not yield blocks all others. All bytes are available at once.
    block_on(async {
        let (turns, mut reading) = (Arc::new(AtomicUsize::new(0)), tokio::task::JoinSet::new());
        for (what, file) in hostile() {
            let turns = turns.clone();
            reading.spawn(async move {
                let (before, length) = (turns.load(Ordering::Relaxed), file.len());
                let mut content = Content::open(pieces(&file, &[length]), LIMITS).await.unwrap();
                let mut most_at_once = 0;
                loop {
                    let turn = turns.load(Ordering::Relaxed);
                    let mut at_once = 0;
                    // As long as no other task had a turn.
                    while turns.load(Ordering::Relaxed) == turn {
                        match content.next().await.unwrap() {
                            Some(piece) => at_once += piece.len(),
                            None => return (what, turn - before, most_at_once.max(at_once)),
                        }
                    }
                    most_at_once = most_at_once.max(at_once);
                }
            });
        }
        let ticking = tokio::spawn(async move {
            loop {
                turns.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        while let Some(read) = reading.join_next().await {
            let (what, turns, most_at_once) = read.unwrap();
            assert!(turns >= 10, "{what}: the others had {turns} turns");
            assert!(most_at_once <= 4 * PIECE_BYTES, "{what}: {most_at_once} bytes at once");
        }
        ticking.abort();
    });
}
