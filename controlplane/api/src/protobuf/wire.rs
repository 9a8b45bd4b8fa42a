//! The wire format of protobuf: keys and values, nothing about what they mean.
//!
//! # Source
//! <https://protobuf.dev/programming-guides/encoding/>

use super::Problem;

/// A value as it stands on the wire.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

impl<'a> Wire<'a> {
    pub(super) fn varint(self) -> Result<u64, Problem> {
        match self {
            Self::Varint(value) => Ok(value),
            other => Err(other.instead_of("a varint")),
        }
    }

    pub(super) fn bytes(self) -> Result<&'a [u8], Problem> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            other => Err(other.instead_of("a length and bytes")),
        }
    }

    pub(super) fn text(self) -> Result<&'a str, Problem> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Problem::new("the text is not UTF-8"))
    }

    pub(super) fn double(self) -> Result<f64, Problem> {
        match self {
            Self::Fixed64(bits) => Ok(f64::from_bits(bits)),
            other => Err(other.instead_of("64 bits")),
        }
    }

    fn instead_of(self, wanted: &str) -> Problem {
        let found = match self {
            Self::Varint(_) => "a varint",
            Self::Fixed64(_) => "64 bits",
            Self::Bytes(_) => "a length and bytes",
            Self::Fixed32(_) => "32 bits",
        };
        Problem::new(format!("the wire has {found} where {wanted} must stand"))
    }
}

/// Reads a message from front to back.
pub(super) struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { left: bytes }
    }

    /// The next field, by its number.
    pub(super) fn field(&mut self) -> Result<Option<(u64, Wire<'a>)>, Problem> {
        if self.left.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let (number, wire_type) = (key >> 3, key & 7);
        if number == 0 {
            return Err(Problem::new("a field has the number 0"));
        }
        let value = match wire_type {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.array()?)),
            other => return Err(Problem::new(format!("field {number} has the wire type {other}, which is not read"))),
        };
        Ok(Some((number, value)))
    }

    /// The next varint of a packed list.
    pub(super) fn packed(&mut self) -> Result<Option<u64>, Problem> {
        if self.left.is_empty() { Ok(None) } else { self.varint().map(Some) }
    }

    fn varint(&mut self) -> Result<u64, Problem> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Problem::new("a varint is longer than 64 bits"))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let (head, tail) = self.left.split_first_chunk().ok_or_else(truncated)?;
        self.left = tail;
        Ok(*head)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Problem> {
        let (head, tail) = self.left.split_at_checked(length).ok_or_else(truncated)?;
        self.left = tail;
        Ok(head)
    }
}

fn truncated() -> Problem {
    Problem::new("it ends in the middle of a field")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        for (bytes, wanted) in [
            (&[][..], Ok(vec![])),
            (&[0x08, 0x96, 0x01], Ok(vec![(1, Wire::Varint(150))])),
            (&[0x12, 2, b'h', b'i', 0x1d, 1, 0, 0, 0], Ok(vec![(2, Wire::Bytes(b"hi")), (3, Wire::Fixed32(1))])),
            (&[0x09, 2, 0, 0, 0, 0, 0, 0, 0], Ok(vec![(1, Wire::Fixed64(2))])),
            (&[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1], Ok(vec![(1, Wire::Varint(u64::MAX))])),
            (&[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2], Err("a varint is longer than 64 bits")),
            (&[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255], Err("a varint is longer than 64 bits")),
            (&[0x08], Err("it ends in the middle of a field")),
            (&[0x12, 5, b'h'], Err("it ends in the middle of a field")),
            (&[0x12, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1], Err("it ends in the middle of a field")),
            (&[0x09, 1, 2], Err("it ends in the middle of a field")),
            (&[0x00, 0], Err("a field has the number 0")),
            (&[0x0b], Err("field 1 has the wire type 3, which is not read")),
            (&[0x0f], Err("field 1 has the wire type 7, which is not read")),
        ] {
            let mut reader = Reader::new(bytes);
            let read = std::iter::from_fn(|| reader.field().transpose()).collect::<Result<Vec<_>, _>>();
            assert_eq!(read.map_err(|e| e.to_string()), wanted.map_err(str::to_owned), "{bytes:?}");
        }
    }
}
