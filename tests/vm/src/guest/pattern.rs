//! Sectors that say what they are: number and version, then bytes drawn from both.

use anyhow::{Result, bail, ensure};

use super::disk::SECTOR;

/// `count` sectors from `sector` on.
#[must_use]
pub fn sectors(sector: u64, count: usize, version: u64) -> Vec<u8> {
    let mut bytes = vec![0; count * SECTOR];
    for (chunk, number) in bytes.chunks_exact_mut(SECTOR).zip(sector..) {
        fill(chunk, number, version);
    }
    bytes
}

fn fill(bytes: &mut [u8], sector: u64, version: u64) {
    let mut state = sector.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ version;
    for (index, word) in bytes.chunks_exact_mut(8).enumerate() {
        let value = match index {
            0 => sector,
            1 => version,
            _ => {
                state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
                let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                mixed ^ (mixed >> 27)
            }
        };
        word.copy_from_slice(&value.to_le_bytes());
    }
}

/// Fails at the first sector that is not what [`sectors`] makes, and says what it looks like.
pub fn check(bytes: &[u8], sector: u64, version: u64) -> Result<()> {
    ensure!(bytes.len() % SECTOR == 0, "{} bytes are not whole sectors", bytes.len());
    let mut expected = [0; SECTOR];
    for (chunk, number) in bytes.chunks_exact(SECTOR).zip(sector..) {
        fill(&mut expected, number, version);
        if chunk != expected {
            bail!("sector {number}: not version {version} but {}", describe(chunk));
        }
    }
    Ok(())
}

fn describe(chunk: &[u8]) -> String {
    if chunk.iter().all(|&byte| byte == 0) {
        return "zeroes".into();
    }
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&chunk[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    let (sector, version) = (word(0), word(8));
    let mut whole = [0; SECTOR];
    fill(&mut whole, sector, version);
    if chunk == whole {
        format!("sector {sector} version {version}")
    } else {
        format!("foreign bytes {:02x?}", &chunk[..16])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sector_knows_its_place_and_version() {
        let mut bytes = sectors(100, 3, 7);
        assert!(check(&bytes, 100, 7).is_ok());
        let wrong = check(&bytes, 101, 7).unwrap_err().to_string();
        assert_eq!(wrong, "sector 101: not version 7 but sector 100 version 7");
        assert!(check(&bytes, 100, 8).is_err());
        bytes[2 * SECTOR + 500] ^= 1;
        let wrong = check(&bytes, 100, 7).unwrap_err().to_string();
        assert!(wrong.starts_with("sector 102: not version 7 but foreign"), "{wrong}");
    }
}
