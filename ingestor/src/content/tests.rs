#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::io::Write as _;

use async_trait::async_trait;
use common::store::StoreErrorKind;
use proptest::prelude::*;

use super::*;

/// Gives out pieces of given lengths (over and over), then the end or an error.
struct Pieces {
    left: Bytes,
    lengths: std::iter::Cycle<std::vec::IntoIter<usize>>,
    fails_with: Option<StoreErrorKind>,
}

#[async_trait]
impl ObjectReader for Pieces {
    async fn next(&mut self) -> common::store::Result<Option<Bytes>> {
        if self.left.is_empty() {
            return match self.fails_with {
                Some(kind) => Err(StoreError::new(kind, "get", "pending/x", "told to fail")),
                None => Ok(None),
            };
        }
        let length = self.lengths.next().unwrap().min(self.left.len());
        Ok(Some(self.left.split_to(length)))
    }
}

fn pieces(file: &[u8], lengths: &[usize]) -> Box<Pieces> {
    let lengths = Vec::from(lengths).into_iter().cycle();
    Box::new(Pieces { left: Bytes::copy_from_slice(file), lengths, fails_with: None })
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

async fn read(reader: Box<Pieces>) -> Result<(Content, Vec<u8>), ContentError> {
    let mut content = Content::open(reader).await?;
    let mut whole = Vec::new();
    while let Some(piece) = content.next().await? {
        assert!(!piece.is_empty(), "an empty piece");
        whole.extend_from_slice(&piece);
    }
    assert!(content.next().await?.is_none(), "the end stays the end");
    Ok((content, whole))
}

fn decode(file: &[u8]) -> Result<Vec<u8>, ContentError> {
    block_on(read(pieces(file, &[1000]))).map(|(_, whole)| whole)
}

fn damage(file: &[u8]) -> String {
    match decode(file) {
        Err(ContentError::Damaged(message)) => message,
        other => panic!("not damaged: {other:?}"),
    }
}

const ALL: [Compression; 4] = [Compression::None, Compression::Gzip, Compression::Zstd, Compression::Bzip2];

fn encode(compression: Compression, body: &[u8]) -> Vec<u8> {
    match compression {
        Compression::None => body.to_vec(),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Zstd => {
            let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
            encoder.include_checksum(true).unwrap();
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Bzip2 => {
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::default());
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
    }
}

/// Some hundred bytes of events, no two alike.
fn sample(events: usize) -> Vec<u8> {
    let event = |number: u64| format!("{{\"event_id\":\"{:016x}\"}}\n", number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    (0..events as u64).map(event).collect::<String>().into_bytes()
}

fn hash(file: &[u8]) -> String {
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(file))
}

#[test]
fn each_codec_is_told_by_the_first_bytes_and_decoded() {
    for compression in ALL {
        for events in [0, 1, 20_000] {
            let body = sample(events);
            let file = encode(compression, &body);
            let (content, whole) = block_on(read(pieces(&file, &[70_000]))).unwrap();
            assert!(whole == body, "{compression:?} of {events} events came out changed");
            assert_eq!(content.compression(), compression);
            assert_eq!(content.raw_bytes(), file.len() as u64);
            assert_eq!(content.raw_hash(), Some(hash(&file)), "the hash must be that of the file as it is stored");
        }
    }
}

#[test]
fn plain_pieces_pass_through_without_a_copy() {
    let reader = pieces(&sample(100), &[2, 1, 500]);
    let expected = reader.left.clone();
    block_on(async {
        let mut content = Content::open(reader).await.unwrap();
        let mut offset = 0;
        while let Some(piece) = content.next().await.unwrap() {
            assert_eq!(piece.as_ptr(), expected[offset..].as_ptr(), "the piece at {offset} was copied");
            offset += piece.len();
        }
        assert_eq!(offset, expected.len());
    });
}

#[test]
fn empty_files_and_those_shorter_than_a_magic_are_plain() {
    for file in [b"".as_slice(), b"{", b"\x1f", b"BZ", b"BZh", b"BZh0", b"\x28\xb5\x2f", b"[]"] {
        let (content, whole) = block_on(read(pieces(file, &[1]))).unwrap();
        assert_eq!((content.compression(), &*whole), (Compression::None, file));
        assert_eq!(content.raw_hash(), Some(hash(file)));
    }
}

#[test]
fn zstd_may_begin_with_a_skippable_frame() {
    let skippable = [b"\x5a\x2a\x4d\x18\x03\x00\x00\x00abc".as_slice(), &encode(Compression::Zstd, b"{}")].concat();
    assert_eq!(decode(&skippable).unwrap(), b"{}");
    damage(&skippable[..9]);
}

#[test]
fn a_file_cut_off_anywhere_is_damaged_and_gives_out_only_what_was_there() {
    let body = sample(300);
    for compression in [Compression::Gzip, Compression::Zstd, Compression::Bzip2] {
        let file = encode(compression, &body);
        for length in (MAGIC_BYTES..file.len()).step_by(7) {
            block_on(async {
                let mut content = Content::open(pieces(&file[..length], &[100])).await.unwrap();
                let mut whole = Vec::new();
                let error = loop {
                    match content.next().await {
                        Ok(Some(piece)) => whole.extend_from_slice(&piece),
                        Ok(None) => panic!("{compression:?} cut at {length} passed for whole"),
                        Err(error) => break error,
                    }
                };
                assert!(error.to_string().contains("cut off"), "{compression:?} cut at {length}: {error}");
                assert!(body.starts_with(&whole), "{compression:?} cut at {length} gave out other bytes");
                assert!(matches!(content.next().await, Err(ContentError::Damaged(_))), "it stays damaged");
            });
        }
    }
}

#[test]
fn bytes_behind_the_last_member_are_damage() {
    for compression in [Compression::Gzip, Compression::Zstd, Compression::Bzip2] {
        let file = [encode(compression, b"{}").as_slice(), b"rubbish"].concat();
        assert!(damage(&file).contains("broken"), "{compression:?}");
    }
}

#[test]
fn the_rest_of_a_damaged_file_is_still_read_so_that_its_hash_is_whole() {
    let mut file = encode(Compression::Gzip, &sample(5000));
    file[30] ^= 0xff;
    block_on(async {
        let mut content = Content::open(pieces(&file, &[64])).await.unwrap();
        while let Ok(Some(_)) = content.next().await {}
        assert_eq!(content.raw_hash(), Some(hash(&file)));
    });
}

#[test]
fn an_error_of_the_store_comes_back_as_it_is_also_when_the_stream_is_broken() {
    let file = encode(Compression::Gzip, &sample(1000));
    let mut broken = file.clone();
    broken[30] ^= 0xff;
    for file in [b"".as_slice(), b"{", &file[..200], &file, &broken, &sample(10)] {
        let mut reader = pieces(file, &[50]);
        reader.fails_with = Some(StoreErrorKind::VersionMismatch);
        match block_on(read(reader)).err().expect("an error of the store was passed over") {
            ContentError::Store(error) => {
                assert_eq!((error.kind, &*error.key), (StoreErrorKind::VersionMismatch, "pending/x"));
            }
            ContentError::Damaged(message) => panic!("taken for damage: {message}"),
        }
    }
}

#[test]
fn bombs_come_out_in_bounded_pieces() {
    const SIZE: usize = 100 * 1024 * 1024;
    for compression in [Compression::Gzip, Compression::Zstd, Compression::Bzip2] {
        let file = encode(compression, &vec![0; SIZE]);
        assert!(file.len() < SIZE / 900, "{compression:?}: not much of a bomb");
        block_on(async {
            let mut content = Content::open(pieces(&file, &[512 * 1024])).await.unwrap();
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
fn a_zstd_window_above_the_recommended_limit_is_refused_with_the_way_out() {
    let compressed = |window_log| {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(window_log).unwrap();
        encoder.write_all(&sample(400_000)).unwrap();
        encoder.finish().unwrap()
    };
    assert!(decode(&compressed(23)).unwrap() == sample(400_000));
    let message = damage(&compressed(24));
    assert!(message.contains("8 MiB") && message.contains("--long") && message.contains("--ultra"), "{message}");
}

#[test]
fn skipping_goes_on_at_the_very_byte() {
    let body = sample(30_000);
    for compression in ALL {
        let file = encode(compression, &body);
        for bytes in [0, 1, 100_000, PIECE_BYTES, body.len() - 1, body.len()] {
            block_on(async {
                let mut content = Content::open(pieces(&file, &[4096])).await.unwrap();
                content.skip(bytes as u64).await.unwrap();
                let mut rest = Vec::new();
                while let Some(piece) = content.next().await.unwrap() {
                    rest.extend_from_slice(&piece);
                }
                assert!(rest == body[bytes..], "{compression:?}: wrong rest after {bytes}");
                assert_eq!(content.raw_hash(), Some(hash(&file)));
            });
        }
        block_on(async {
            let mut content = Content::open(pieces(&file, &[4096])).await.unwrap();
            let beyond = content.skip(body.len() as u64 + 1).await;
            assert!(matches!(beyond, Err(ContentError::Damaged(_))), "{compression:?}: skipped past the end");
        });
    }
}

fn any_compression() -> impl Strategy<Value = Compression> {
    proptest::sample::select(&ALL[1..])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_members_in_any_pieces_come_out_whole(
        compression in any_compression(),
        members in proptest::collection::vec(0..400_usize, 1..5),
        lengths in proptest::collection::vec(1..5000_usize, 1..6),
    ) {
        let bodies: Vec<Vec<u8>> = members.iter().map(|&events| sample(events)).collect();
        let file: Vec<u8> = bodies.iter().flat_map(|body| encode(compression, body)).collect();
        let (content, whole) = block_on(read(pieces(&file, &lengths))).unwrap();
        prop_assert!(whole == bodies.concat(), "came out changed");
        prop_assert_eq!(content.compression(), compression);
        prop_assert_eq!(content.raw_hash(), Some(hash(&file)));
    }

    #[test]
    fn flipped_bits_are_damage_or_change_nothing(
        compression in any_compression(),
        events in 0..200_usize,
        place in any::<proptest::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let body = sample(events);
        let mut file = encode(compression, &body);
        let place = place.index(file.len());
        file[place] ^= 1 << bit;
        match block_on(read(pieces(&file, &[100]))) {
            // Not recognised any more: then it is plain, and no event.
            Ok((content, whole)) if place < MAGIC_BYTES => {
                prop_assert!(content.compression() == Compression::None || whole == body);
            }
            Ok((_, whole)) => prop_assert!(whole == body, "other bytes passed for the file's"),
            Err(ContentError::Damaged(_)) => {}
            Err(error) => prop_assert!(false, "{}", error),
        }
    }

    #[test]
    fn rubbish_behind_a_magic_never_panics(
        compression in any_compression(),
        rubbish in proptest::collection::vec(any::<u8>(), 0..3000),
        kept in 0..60_usize,
    ) {
        let file = encode(compression, &sample(100));
        let file = [&file[..kept.max(MAGIC_BYTES).min(file.len())], &rubbish].concat();
        let outcome = block_on(read(pieces(&file, &[333])));
        prop_assert!(!matches!(outcome, Err(ContentError::Store(_))));
    }
}
