//! The wanted values, as a tree of keys that the scanner follows while it scans a value.

use super::pointer::Pointer;
use super::string::key_means;

/// The maximum number of different wanted values.
pub const MAX_SLOTS: usize = 16;
/// A bit set has one bit for each node: whether its key has occurred.
const MAX_NODES: usize = 64;

/// A node of the tree: a wanted value, or a value on the way to one.
pub(super) type NodeId = u8;
/// No node: a value that is not wanted.
pub(super) const NOWHERE: NodeId = u8::MAX;
/// The whole value.
pub(super) const ROOT: NodeId = 0;

const NO_SLOT: u8 = u8::MAX;

/// A set of JSON pointers, each with a slot that holds its span after the scan.
#[derive(Debug, Clone)]
pub struct FieldPaths {
    nodes: Vec<Node>,
    slots: usize,
}

#[derive(Debug, Clone)]
struct Node {
    slot: u8,
    /// The slot that an error names when the key of this node occurs twice: the first one below it.
    reported_slot: u8,
    edges: Vec<Edge>,
}

#[derive(Debug, Clone)]
struct Edge {
    key: String,
    /// The first eight bytes of the key, which distinguish most keys in one comparison.
    head: u64,
    /// The key has only one spelling: it contains no quotation mark, backslash or control character.
    plain: bool,
    /// The key as an array index, if it is one (RFC 6901, section 4).
    index: Option<usize>,
    to: NodeId,
}

impl Default for FieldPaths {
    fn default() -> Self {
        Self { nodes: vec![Node { slot: NO_SLOT, reported_slot: NO_SLOT, edges: Vec::new() }], slots: 0 }
    }
}

impl FieldPaths {
    /// Adds a pointer and returns its slot; a pointer that was added before keeps its slot.
    ///
    /// # Errors
    /// More than [`MAX_SLOTS`] different pointers, or too many keys on the ways to them.
    pub fn add(&mut self, pointer: &Pointer) -> Result<usize, String> {
        self.add_with(pointer, array_index)
    }

    /// As [`FieldPaths::add`], but a key that looks like an index does not match an element of an array.
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
        // Capacity is checked first, so that a refused pointer changes nothing.
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

    /// Returns the node of an object's member. Its key is the first `length` of `bytes`: the text between the quotes.
    /// Sets `next` to the key that follows in the order in which pointers were added.
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

    /// As [`FieldPaths::member`], if the key is the expected one: returns its node and its length. Members mostly have
    /// the same order, and comparing with a known key is faster than finding the end of a key.
    #[inline(always)]
    pub(super) fn expected_member(&self, parent: NodeId, bytes: &[u8], next: usize) -> Option<(NodeId, usize)> {
        let edge = self.nodes.get(usize::from(parent))?.edges.get(next)?;
        let length = edge.key.len();
        let same = edge.head == head(bytes, length)
            && (length <= 8 || edge.key.as_bytes().get(8..) == bytes.get(8..length))
            && bytes.get(length) == Some(&b'"');
        (same && edge.plain).then_some((edge.to, length))
    }

    /// Returns the node of an array's element.
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

/// The first eight of the first `length` bytes, padded with zeros. A key never contains a zero byte: the scanner
/// refuses it.
#[inline(always)]
fn head(bytes: &[u8], length: usize) -> u64 {
    match bytes.first_chunk::<8>() {
        Some(chunk) if length >= 8 => u64::from_le_bytes(*chunk),
        Some(chunk) => u64::from_le_bytes(*chunk) & ((1 << (length * 8)) - 1),
        None => bytes.iter().take(length).rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

/// Digits without a leading zero. `-`, the element after the last, never exists.
fn array_index(key: &str) -> Option<usize> {
    let canonical = key == "0" || (!key.starts_with('0') && key.bytes().all(|byte| byte.is_ascii_digit()));
    if canonical { key.parse().ok() } else { None }
}
