//! Content in the forms that Btrfs has on disk, for when the kernel does not
//! take it as it is. Bytes only.

use std::io::Read;

/// What a kernel writes at most is 128 KiB; this bounds what a stream can ask
/// for.
const MOST: u64 = 1 << 20;

/// Decompresses `data` to `length` bytes. Zeros stand for what is missing at
/// the end, as the kernel takes it.
pub(super) fn decompress(compression: u32, data: &[u8], length: u64) -> Result<Vec<u8>, String> {
    if length > MOST {
        return Err(format!("{length} bytes decompressed are more than {MOST}"));
    }
    // At most 1 MiB, by the check above.
    let length = length as usize;
    let mut out = match compression {
        1 => read(flate2::bufread::ZlibDecoder::new(data), length, "zlib")?,
        2 => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(data)
                .map_err(|error| format!("zstd: {error}"))?;
            read(decoder, length, "zstd")?
        }
        // One for each size of sector, from 4 KiB to 64 KiB.
        3..=7 => lzo(data, 4096 << (compression - 3), length)?,
        other => return Err(format!("compression {other} is unknown")),
    };
    out.resize(length, 0);
    Ok(out)
}

fn read(mut decoder: impl Read, length: usize, name: &str) -> Result<Vec<u8>, String> {
    let mut out = vec![0; length];
    let mut filled = 0;
    // Not to the end of the data: the extent has zeros there.
    while filled < length {
        match decoder.read(&mut out[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) => return Err(format!("{name}: {error}")),
        }
    }
    out.truncate(filled);
    Ok(out)
}

/// Btrfs' framing of LZO: the length of all, then segments of at most a sector
/// of content, each with its length, which does not cross a sector.
fn lzo(data: &[u8], sector: usize, length: usize) -> Result<Vec<u8>, String> {
    let word = |at: usize| -> Option<usize> {
        let bytes = data.get(at..at.checked_add(4)?)?;
        usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
    };
    let total = word(0).filter(|total| *total <= data.len());
    let total = total.ok_or("lzo: the length is beyond the end")?;
    let mut out = Vec::with_capacity(length);
    let mut segment = vec![0; sector];
    let mut at = 4;
    while out.len() < length && at < total {
        let left = sector - at % sector;
        if left < 4 {
            at += left;
        }
        let size = word(at).ok_or("lzo: a segment is cut off")?;
        at += 4;
        let source = at.checked_add(size).and_then(|end| data.get(at..end));
        let source = source.ok_or("lzo: a segment is cut off")?;
        let count = lzokay::decompress::decompress(source, &mut segment)
            .map_err(|error| format!("lzo: {error:?}"))?;
        out.extend_from_slice(segment.get(..count).unwrap_or_default());
        at += size;
    }
    out.truncate(length);
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::io::Write;

    #[test]
    fn zlib_with_the_zeros_of_an_extent() {
        let content: Vec<u8> = (0..9000u32).map(|i| (i / 100) as u8).collect();
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&content).unwrap();
        let mut data = encoder.finish().unwrap();
        data.resize(data.len().next_multiple_of(4096), 0);
        assert_eq!(decompress(1, &data, 9000).unwrap(), content);
        let longer = decompress(1, &data, 12288).unwrap();
        assert_eq!(&longer[..9000], content);
        assert_eq!(longer[9000..], [0; 3288]);
        assert!(decompress(1, &data[..20], 9000).is_err());
    }

    #[test]
    fn wild_input_is_refused() {
        assert!(decompress(1, b"", 4 << 20).is_err());
        assert!(decompress(9, b"", 4).is_err());
        // Every short input, and every length that a frame of LZO can claim.
        for kind in [1, 2, 3, 7] {
            for byte in 0..=255u8 {
                for count in 0..16 {
                    let _ = decompress(kind, &vec![byte; count], 4096);
                }
            }
        }
        let mut framed = 12u32.to_le_bytes().to_vec();
        framed.extend(u32::MAX.to_le_bytes());
        framed.extend([0; 4]);
        assert!(decompress(3, &framed, 4096).is_err());
    }
}
