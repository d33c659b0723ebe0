//! What a kernel module says of itself: the section `.modinfo` of its ELF file.
//! For module directories without an index.

/// The values of `key` in the module, such as its dependencies under `depends`.
/// `None` if the bytes are not an ELF file with that section.
pub(crate) fn values<'a>(elf: &'a [u8], key: &str) -> Option<Vec<&'a [u8]>> {
    let section = section(elf, b".modinfo")?;
    let found = section.split(|&b| b == 0).filter_map(|entry| {
        let (name, value) = entry.split_at_checked(key.len())?;
        (name == key.as_bytes())
            .then_some(value)?
            .strip_prefix(b"=")
    });
    Some(found.collect())
}

/// Finds a section by name, in ELF files of either width and byte order.
fn section<'a>(elf: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let wide = match elf.get(..6)? {
        [0x7f, b'E', b'L', b'F', 1, _] => false,
        [0x7f, b'E', b'L', b'F', 2, _] => true,
        _ => return None,
    };
    let big = elf[5] == 2;
    let number = |at: usize, width: usize| -> Option<usize> {
        let bytes = elf.get(at..at.checked_add(width)?)?;
        let fold = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        let value = if big {
            bytes.iter().fold(0, fold)
        } else {
            bytes.iter().rev().fold(0, fold)
        };
        usize::try_from(value).ok()
    };
    // Header: place of the section table, size and number of its entries, and
    // which of them holds the names.
    let (table, entry) = if wide {
        (number(40, 8)?, 58)
    } else {
        (number(32, 4)?, 46)
    };
    let size = number(entry, 2)?;
    let count = number(entry + 2, 2)?;
    let names = number(entry + 4, 2)?;
    let content = |index: usize| -> Option<&'a [u8]> {
        let at = table.checked_add(index.checked_mul(size)?)?;
        let (offset, length) = if wide {
            (number(at + 24, 8)?, number(at + 32, 8)?)
        } else {
            (number(at + 16, 4)?, number(at + 20, 4)?)
        };
        elf.get(offset..offset.checked_add(length)?)
    };
    let names = content(names)?;
    for index in 0..count {
        let at = table.checked_add(index.checked_mul(size)?)?;
        let own = names.get(number(at, 4)?..)?;
        if own.starts_with(name) && own.get(name.len()) == Some(&0) {
            return content(index);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// A 64-bit file with three sections: none, names, `.modinfo`.
    fn module(info: &[u8]) -> Vec<u8> {
        let names = b"\0.shstrtab\0.modinfo\0";
        let mut elf = vec![0u8; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let names_at = elf.len();
        elf.extend(names);
        let info_at = elf.len();
        elf.extend(info);
        let table = elf.len();
        elf[40..48].copy_from_slice(&(table as u64).to_le_bytes());
        elf[58..60].copy_from_slice(&64u16.to_le_bytes());
        elf[60..62].copy_from_slice(&3u16.to_le_bytes());
        elf[62..64].copy_from_slice(&1u16.to_le_bytes());
        for (name, at, length) in [
            (0u32, 0, 0),
            (1, names_at, names.len()),
            (11, info_at, info.len()),
        ] {
            let mut entry = [0u8; 64];
            entry[..4].copy_from_slice(&name.to_le_bytes());
            entry[24..32].copy_from_slice(&(at as u64).to_le_bytes());
            entry[32..40].copy_from_slice(&(length as u64).to_le_bytes());
            elf.extend(entry);
        }
        elf
    }

    #[test]
    fn keys_and_values() {
        let elf = module(b"license=GPL\0depends=a,b\0depends_not=x\0parm=x:y=z\0");
        assert_eq!(values(&elf, "depends").unwrap(), [b"a,b"]);
        assert_eq!(values(&elf, "parm").unwrap(), [b"x:y=z"]);
        assert!(values(&elf, "none").unwrap().is_empty());
        for cut in 0..elf.len() {
            // Never a panic; an answer only if the sections are whole.
            let _ = values(&elf[..cut], "depends");
        }
        assert_eq!(values(b"not an elf file", "depends"), None);
        let mut wild = elf;
        wild[40..48].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(values(&wild, "depends"), None);
    }
}
