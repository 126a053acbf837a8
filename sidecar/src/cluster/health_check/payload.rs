//! What a check looks for in an answer.

use bytes::Bytes;

/// Whether `data` has every block, in this order; there may be anything between them.
pub(super) fn has_in_order(data: &[u8], blocks: &[Bytes]) -> bool {
    let mut rest = data;
    blocks.iter().all(|block| {
        let found = find(rest, block);
        rest = found.and_then(|at| rest.get(at + block.len()..)).unwrap_or_default();
        found.is_some()
    })
}

fn find(data: &[u8], block: &[u8]) -> Option<usize> {
    if block.is_empty() {
        return Some(0);
    }
    data.windows(block.len()).position(|window| window == block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_in_order_with_anything_between_and_never_overlapping() {
        for (data, blocks, expected) in [
            ("hello world", &["hello", "world"][..], true),
            ("hello world", &["world", "hello"], false),
            ("hello", &[], true),
            ("", &["x"], false),
            ("aab", &["aa", "ab"], false),
            ("aaab", &["aa", "ab"], true),
            ("", &[""], true),
        ] {
            let blocks: Vec<Bytes> =
                blocks.iter().map(|b| Bytes::from_static(b.as_bytes())).collect();
            assert_eq!(has_in_order(data.as_bytes(), &blocks), expected, "{data} {blocks:?}");
        }
    }
}
