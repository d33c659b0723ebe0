//! The checksums of a stream, worked out without the crate.

/// The checksum as the kernel computes it, one bit at a time.
fn checksum(bytes: &[u8]) -> u32 {
    let mut sum = 0u32;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 {
                sum >> 1 ^ 0x82f6_3b78
            } else {
                sum >> 1
            };
        }
    }
    sum
}

/// Makes all checksums right again, as far as lengths still lead to them.
pub(crate) fn repair(bytes: &mut [u8]) {
    let mut at = 17;
    while let Some(header) = bytes.get(at..at + 10) {
        let length = u32::from_le_bytes(header[..4].try_into().unwrap()) as usize;
        let Some(end) = (at + 10)
            .checked_add(length)
            .filter(|end| *end <= bytes.len())
        else {
            return;
        };
        bytes[at + 6..at + 10].fill(0);
        let sum = checksum(&bytes[at..end]);
        bytes[at + 6..at + 10].copy_from_slice(&sum.to_le_bytes());
        at = end;
    }
}
