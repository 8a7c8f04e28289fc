//! A 128-bit name in the usual notation: labels and machine ids.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Uuid(pub [u8; 16]);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// With or without dashes, as in /etc/machine-id.
impl FromStr for Uuid {
    type Err = String;
    fn from_str(text: &str) -> Result<Uuid, String> {
        let digits: Vec<u32> =
            text.chars().filter(|&c| c != '-').map_while(|c| c.to_digit(16)).collect();
        let dashes = text.chars().filter(|&c| c == '-').count();
        if digits.len() != 32 || digits.len() + dashes != text.chars().count() {
            return Err(format!("\"{text}\" is not a UUID (32 hexadecimal digits)"));
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            *byte = (pair[0] << 4 | pair[1]) as u8;
        }
        Ok(Uuid(bytes))
    }
}

impl From<Uuid> for String {
    fn from(uuid: Uuid) -> String {
        uuid.to_string()
    }
}

impl TryFrom<String> for Uuid {
    type Error = String;
    fn try_from(text: String) -> Result<Uuid, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_notations_parse_and_others_do_not() {
        let uuid = Uuid(std::array::from_fn(|i| i as u8 * 17));
        assert_eq!(uuid.to_string(), "00112233-4455-6677-8899-aabbccddeeff");
        assert_eq!(uuid.to_string().parse(), Ok(uuid));
        assert_eq!("00112233445566778899aabbccddeeff".parse(), Ok(uuid));
        for bad in
            ["", "0011", "00112233445566778899aabbccddeefg", "é0112233445566778899aabbccddee"]
        {
            assert!(bad.parse::<Uuid>().is_err(), "{bad}");
        }
    }
}
