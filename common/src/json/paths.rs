//! The values that are wanted, as a tree of keys that the scanner walks down while it passes over a value.

use super::pointer::Pointer;
use super::string::key_means;

/// How many different values can be wanted at once.
pub const MAX_SLOTS: usize = 16;
/// One bit each says whether a key has occurred.
const MAX_NODES: usize = 64;

/// A place in the tree: a value on the way to a wanted one, or a wanted one itself.
pub(super) type NodeId = u8;
/// No place: a value that nobody asked for.
pub(super) const NOWHERE: NodeId = u8::MAX;
/// The whole value.
pub(super) const ROOT: NodeId = 0;

const NO_SLOT: u8 = u8::MAX;

/// A set of JSON pointers, each with a slot under which its span is found after the scan.
#[derive(Debug, Clone)]
pub struct FieldPaths {
    nodes: Vec<Node>,
    slots: usize,
}

#[derive(Debug, Clone)]
struct Node {
    slot: u8,
    /// The slot to name when the key of this place occurs twice: the first one below it.
    reported_slot: u8,
    edges: Vec<Edge>,
}

#[derive(Debug, Clone)]
struct Edge {
    key: String,
    /// Its first eight bytes, to tell most keys apart in one comparison.
    head: u64,
    /// It is never written otherwise than it is: no quotation mark, backslash or control character is in it.
    plain: bool,
    /// The key as an index into an array, if it can be one (RFC 6901, section 4).
    index: Option<usize>,
    to: NodeId,
}

impl Default for FieldPaths {
    fn default() -> Self {
        Self { nodes: vec![Node { slot: NO_SLOT, reported_slot: NO_SLOT, edges: Vec::new() }], slots: 0 }
    }
}

impl FieldPaths {
    /// Adds a pointer and returns its slot; a pointer that is there already keeps the one it has.
    ///
    /// # Errors
    /// More than [`MAX_SLOTS`] different pointers, or more keys on the ways to them than there is room for.
    pub fn add(&mut self, pointer: &Pointer) -> Result<usize, String> {
        self.add_with(pointer, array_index)
    }

    /// As [`FieldPaths::add`], but a key that looks like an index is no way into an array.
    ///
    /// # Errors
    /// As [`FieldPaths::add`].
    pub fn add_through_objects(&mut self, pointer: &Pointer) -> Result<usize, String> {
        self.add_with(pointer, |_| None)
    }

    fn add_with(&mut self, pointer: &Pointer, index: impl Fn(&str) -> Option<usize>) -> Result<usize, String> {
        if let Some(slot) = self.existing(pointer) {
            return Ok(slot);
        }
        // Room is judged first, so that a refused pointer leaves nothing behind.
        if self.slots == MAX_SLOTS || self.nodes.len() + pointer.segments().len() > MAX_NODES {
            return Err(format!("more than {MAX_SLOTS} different values, or {MAX_NODES} keys on the ways to them"));
        }
        let new_slot = u8::try_from(self.slots).unwrap_or(NO_SLOT);
        let mut place = usize::from(ROOT);
        for key in pointer.segments() {
            place = usize::from(self.child_or_new(place, key, index(key), new_slot));
        }
        self.nodes[place].slot = new_slot;
        self.slots += 1;
        Ok(usize::from(new_slot))
    }

    fn existing(&self, pointer: &Pointer) -> Option<usize> {
        let mut place = ROOT;
        for key in pointer.segments() {
            place = self.nodes.get(usize::from(place))?.edges.iter().find(|edge| edge.key == *key)?.to;
        }
        self.slot(place)
    }

    fn child_or_new(&mut self, parent: usize, key: &str, index: Option<usize>, slot: u8) -> NodeId {
        if let Some(edge) = self.nodes[parent].edges.iter().find(|edge| edge.key == key) {
            return edge.to;
        }
        let to = NodeId::try_from(self.nodes.len()).unwrap_or(NOWHERE);
        let plain = !key.contains(['"', '\\']) && key.bytes().all(|byte| byte >= b' ');
        self.nodes.push(Node { slot: NO_SLOT, reported_slot: slot, edges: Vec::new() });
        self.nodes[parent].edges.push(Edge {
            head: head(key.as_bytes(), key.len()),
            key: key.to_owned(),
            plain,
            index,
            to,
        });
        to
    }

    /// Where the member of an object leads to. Its key is the first `length` of `bytes`: what stands between the quotes.
    /// `next` is set to the key that comes next in the order in which pointers were added.
    #[inline]
    pub(super) fn member(
        &self,
        parent: NodeId,
        bytes: &[u8],
        length: usize,
        escaped: bool,
        next: &mut usize,
    ) -> NodeId {
        let Some(node) = self.nodes.get(usize::from(parent)) else { return NOWHERE };
        let Some(key) = bytes.get(..length) else { return NOWHERE };
        if escaped {
            return node.escaped_member(key);
        }
        let head = head(bytes, length);
        let is_key = |edge: &Edge| edge.head == head && edge.key.as_bytes() == key;
        let Some(index) = node.edges.iter().position(is_key) else { return NOWHERE };
        *next = index + 1;
        node.edges.get(index).map_or(NOWHERE, |edge| edge.to)
    }

    /// As [`FieldPaths::member`], if the key is the one that is expected: where it leads to, and the length of the key.
    /// Members mostly stand in one order, and to see that a known key is there takes less than to find where it ends.
    #[inline(always)]
    pub(super) fn expected_member(&self, parent: NodeId, bytes: &[u8], next: usize) -> Option<(NodeId, usize)> {
        let edge = self.nodes.get(usize::from(parent))?.edges.get(next)?;
        let length = edge.key.len();
        let same = edge.head == head(bytes, length)
            && (length <= 8 || edge.key.as_bytes().get(8..) == bytes.get(8..length))
            && bytes.get(length) == Some(&b'"');
        (same && edge.plain).then_some((edge.to, length))
    }

    /// Where an element of an array leads to.
    pub(super) fn element(&self, parent: NodeId, index: usize) -> NodeId {
        let Some(node) = self.nodes.get(usize::from(parent)) else { return NOWHERE };
        node.edges.iter().find(|edge| edge.index == Some(index)).map_or(NOWHERE, |edge| edge.to)
    }

    #[inline]
    pub(super) fn slot(&self, node: NodeId) -> Option<usize> {
        let slot = self.nodes.get(usize::from(node))?.slot;
        (slot != NO_SLOT).then_some(usize::from(slot))
    }

    pub(super) fn reported_slot(&self, node: NodeId) -> usize {
        self.nodes.get(usize::from(node)).map_or(0, |node| usize::from(node.reported_slot))
    }
}

impl Node {
    #[cold]
    fn escaped_member(&self, key: &[u8]) -> NodeId {
        self.edges.iter().find(|edge| key_means(key, &edge.key)).map_or(NOWHERE, |edge| edge.to)
    }
}

/// The first eight of the first `length` bytes, zeros where there are fewer. A key has no zero byte of its own: the
/// scanner lets none pass.
#[inline(always)]
fn head(bytes: &[u8], length: usize) -> u64 {
    match bytes.first_chunk::<8>() {
        Some(chunk) if length >= 8 => u64::from_le_bytes(*chunk),
        Some(chunk) => u64::from_le_bytes(*chunk) & ((1 << (length * 8)) - 1),
        None => bytes.iter().take(length).rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

/// Digits without a leading zero; `-`, the element after the last, is never there.
fn array_index(key: &str) -> Option<usize> {
    let canonical = key == "0" || (!key.starts_with('0') && key.bytes().all(|byte| byte.is_ascii_digit()));
    if canonical { key.parse().ok() } else { None }
}
