#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::io::Write as _;

use async_trait::async_trait;
use common::store::StoreErrorKind;
use proptest::prelude::*;

use super::codec::MAGIC_BYTES;
use super::decoder::PIECE_BYTES;
use super::foreign::tests::tar;
use super::*;

mod bounds;

const LIMITS: ExpansionLimits =
    ExpansionLimits { max_ratio: u64::MAX, ratio_from_bytes: 1_000_000, max_bytes: u64::MAX };

/// Returns pieces of the given lengths (cyclically), then the end or an error.
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
                Some(kind) => Err(StoreError::new(kind, "get", "pending/x", "injected failure")),
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

async fn read_within(reader: Box<Pieces>, limits: ExpansionLimits) -> Result<(Content, Vec<u8>), ContentError> {
    let mut content = Content::open(reader, limits).await?;
    let mut whole = Vec::new();
    while let Some(piece) = content.next().await? {
        assert!(!piece.is_empty(), "an empty piece");
        whole.extend_from_slice(&piece);
    }
    assert!(content.next().await?.is_none(), "the end stays the end");
    Ok((content, whole))
}

async fn read(reader: Box<Pieces>) -> Result<(Content, Vec<u8>), ContentError> {
    read_within(reader, LIMITS).await
}

/// The output before a file is rejected, and the reason.
fn rejected(file: &[u8], limits: ExpansionLimits) -> (Vec<u8>, String) {
    block_on(async {
        let mut whole = Vec::new();
        let mut content = match Content::open(pieces(file, &[100]), limits).await {
            Ok(content) => content,
            Err(error) => return (whole, error.to_string()),
        };
        let message = loop {
            match content.next().await {
                Ok(Some(piece)) => whole.extend_from_slice(&piece),
                Ok(None) => panic!("it passed for whole"),
                Err(ContentError::Rejected(message)) => break message,
                Err(error) => panic!("an error of the store: {error}"),
            }
        };
        assert!(matches!(content.next().await, Err(ContentError::Rejected(again)) if again == message), "it stays so");
        (whole, message)
    })
}

fn decode(file: &[u8]) -> Result<Vec<u8>, ContentError> {
    block_on(read(pieces(file, &[1000]))).map(|(_, whole)| whole)
}

fn damage(file: &[u8]) -> String {
    match decode(file) {
        Err(ContentError::Rejected(message)) => message,
        other => panic!("not damaged: {other:?}"),
    }
}

const COMPRESSIONS: [Compression; 3] = [Compression::Gzip, Compression::Zstd, Compression::Bzip2];
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

/// Some hundred bytes of events, all different.
fn sample(events: usize) -> Vec<u8> {
    let event = |number: u64| format!("{{\"event_id\":\"{:016x}\"}}\n", number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    (0..events as u64).map(event).collect::<String>().into_bytes()
}

fn hash(file: &[u8]) -> String {
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(file))
}

#[test]
fn each_codec_is_recognised_by_the_first_bytes_and_decoded() {
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
        let mut content = Content::open(reader, LIMITS).await.unwrap();
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
    for compression in COMPRESSIONS {
        let file = encode(compression, &body);
        for length in (MAGIC_BYTES..file.len()).step_by(7) {
            let (whole, message) = rejected(&file[..length], LIMITS);
            assert!(message.contains("cut off at byte"), "{compression:?} cut at {length}: {message}");
            assert!(body.starts_with(&whole), "{compression:?} cut at {length} gave out other bytes");
        }
    }
}

#[test]
fn zeros_between_and_after_members_are_padding() {
    let (body, lengths) = (sample(20), [1, 2, 3, 512, 10_000]);
    for compression in COMPRESSIONS {
        let member = encode(compression, &body);
        for padding in lengths {
            let file = [&*member, &vec![0; padding], &member, &vec![0; padding + 1]].concat();
            for piece in lengths {
                let (content, whole) = block_on(read(pieces(&file, &[piece]))).unwrap();
                assert!(whole == body.repeat(2), "{compression:?} padded with {padding} came out changed");
                assert_eq!(content.raw_hash(), Some(hash(&file)));
            }
        }
    }
}

#[test]
fn bytes_after_a_member_are_damage_and_the_message_says_where_it_begins() {
    let body = sample(20);
    for compression in COMPRESSIONS {
        let member = encode(compression, &body);
        let sound = format!("sound up to byte {}", member.len());
        for rest in [b"rubbish".as_slice(), b"\0\0x", b"x", b"\x1f", &[0; 600], b"{}"] {
            let rest = if rest.iter().any(|byte| *byte != 0) { rest.to_vec() } else { [rest, b"x"].concat() };
            let (whole, message) = rejected(&[&*member, &*rest].concat(), LIMITS);
            assert!(message.contains(&sound) && message.contains("followed by"), "{compression:?}: {message}");
            assert!(whole == body, "{compression:?}: what came before is given out first");
        }
        let (whole, message) = rejected(&[&*member, &member[..member.len() - 2]].concat(), LIMITS);
        assert!(message.contains(&sound) && message.contains("cut off"), "{compression:?}: {message}");
        assert!(whole.starts_with(&body));
    }
}

#[test]
fn the_rest_of_a_damaged_file_is_still_read_so_that_its_hash_is_whole() {
    let mut file = encode(Compression::Gzip, &sample(5000));
    let middle = file.len() / 2;
    file[middle] ^= 0xff;
    block_on(async {
        let mut content = Content::open(pieces(&file, &[64]), LIMITS).await.unwrap();
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
        match block_on(read(reader)).err().expect("an error of the store was ignored") {
            ContentError::Store(error) => {
                assert_eq!((error.kind, &*error.key), (StoreErrorKind::VersionMismatch, "pending/x"));
            }
            ContentError::Rejected(message) => panic!("taken for damage: {message}"),
        }
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

fn rest(file: &[u8], lengths: &[usize], from: usize) -> Vec<u8> {
    block_on(async {
        let mut content = Content::open(pieces(file, lengths), LIMITS).await.unwrap();
        content.skip(from as u64).await.unwrap();
        let mut rest = Vec::new();
        while let Some(piece) = content.next().await.unwrap() {
            rest.extend_from_slice(&piece);
        }
        assert_eq!(content.raw_hash(), Some(hash(file)));
        rest
    })
}

#[test]
fn skipping_goes_on_at_the_very_byte() {
    let body = sample(30_000);
    for compression in ALL {
        let file = encode(compression, &body);
        for bytes in [0, 1, 100_000, PIECE_BYTES, body.len() - 1, body.len()] {
            assert!(rest(&file, &[4096], bytes) == body[bytes..], "{compression:?}: wrong rest after {bytes}");
        }
        block_on(async {
            let mut content = Content::open(pieces(&file, &[4096]), LIMITS).await.unwrap();
            let beyond = content.skip(body.len() as u64 + 1).await;
            assert!(matches!(beyond, Err(ContentError::Rejected(_))), "{compression:?}: skipped past the end");
        });
    }
}

fn any_compression() -> impl Strategy<Value = Compression> {
    proptest::sample::select(&COMPRESSIONS[..])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_compression_within_any_other_comes_out_whole_in_any_pieces(
        (outer, inner) in (any_compression(), any_compression()),
        events in 0..400_usize,
        lengths in proptest::collection::vec(1..5000_usize, 1..6),
        skipped in any::<proptest::sample::Index>(),
    ) {
        let body = sample(events);
        let file = encode(outer, &encode(inner, &body));
        let (content, whole) = block_on(read(pieces(&file, &lengths))).unwrap();
        prop_assert!(whole == body, "came out changed");
        prop_assert_eq!(content.compression(), outer);
        prop_assert_eq!(content.raw_hash(), Some(hash(&file)));
        let from = skipped.index(body.len() + 1);
        prop_assert_eq!(rest(&file, &lengths, from), &body[from..]);
        let mut unpacked = Vec::new();
        unpack(&file, lengths[0], LIMITS, |piece| unpacked.extend_from_slice(piece)).unwrap();
        prop_assert!(unpacked == body, "without I/O it came out changed");
    }

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
            // No longer detected: then it is plain, and not an event. Ten bytes identify bzip2.
            Ok((content, whole)) if place < 10 => {
                prop_assert!(content.compression() == Compression::None || whole == body);
            }
            Ok((_, whole)) => prop_assert!(whole == body, "other bytes passed for the file's"),
            Err(ContentError::Rejected(_)) => {}
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

#[test]
fn a_third_level_of_compression_is_refused() {
    let file = encode(Compression::Zstd, &encode(Compression::Bzip2, &encode(Compression::Gzip, &sample(3))));
    let (whole, message) = rejected(&file, LIMITS);
    assert!(whole.is_empty() && message.contains("gzip within bzip2 within zstd"), "{message}");
}

#[test]
fn damage_names_the_level_it_lies_in() {
    let body = sample(30_000);
    let inner = encode(Compression::Gzip, &body);
    let outer = encode(Compression::Zstd, &inner);
    let (whole, message) = rejected(&outer[..outer.len() - 3], LIMITS);
    assert!(message.starts_with(&format!("the zstd stream is cut off at byte {}", outer.len() - 3)), "{message}");
    assert!(!whole.is_empty() && body.starts_with(&whole), "what reached the inner level is given out first");
    let (whole, message) = rejected(&encode(Compression::Zstd, &inner[..inner.len() - 3]), LIMITS);
    let expected = format!("within the zstd stream: the gzip stream is cut off at byte {}", inner.len() - 3);
    assert_eq!(message, expected);
    assert!(body.starts_with(&whole));
}

#[test]
fn unsupported_formats_are_named_also_within_a_compressed_file() {
    let archive = tar("events/1.json", &sample(10));
    let zip = [b"PK\x03\x04".as_slice(), &sample(10)].concat();
    let utf_16: Vec<u8> = r#"{"event_id":"x"}"#.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (file, name) in [(archive, "tar archive"), (zip, "zip archive"), (utf_16, "UTF-16")] {
        let (whole, message) = rejected(&file, LIMITS);
        assert!(whole.is_empty() && message.starts_with("is ") && message.contains(name), "{message}");
        for compression in COMPRESSIONS {
            let (whole, message) = rejected(&encode(compression, &file), LIMITS);
            let place = format!("within the {} stream: is ", compression.name());
            assert!(whole.is_empty() && message.starts_with(&place) && message.contains(name), "{message}");
        }
    }
}

#[test]
fn text_in_front_of_events_hides_none_of_them() {
    for text in ["BZh9 is no bzip2\n", "PK\n", "PAR1\n", "Obj\n", "\0\0\n", "x\u{9c}\n", "ustar\n"] {
        let file = [text.as_bytes(), &sample(3)].concat();
        assert_eq!(decode(&file).unwrap(), file, "{text:?}");
    }
}
