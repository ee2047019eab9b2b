//! VLAN tags: IEEE 802.1Q, and stacks of them (802.1ad, "QinQ").

use super::error::{Header, Malformation, WireError, header};
use super::ethernet::EtherType;

/// How many tags are followed. Networks stack two, seldom three.
pub const MAX_VLAN_TAGS: usize = 8;

/// One tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanTag(u16);

impl VlanTag {
    /// All sixteen bits as they stand in the frame: priority, drop eligibility, and the VLAN.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// The VLAN, 0 to 4095; 0 says that the tag carries a priority alone.
    #[must_use]
    pub const fn id(self) -> u16 {
        self.0 & 0x0fff
    }

    /// The priority, 0 to 7.
    #[must_use]
    pub const fn priority(self) -> u8 {
        (self.0 >> 13) as u8
    }
}

/// The tags between an Ethernet header and the packet.
#[derive(Clone, Copy, Debug)]
pub struct VlanTags<'a> {
    outer: Option<VlanTag>,
    inner: Option<VlanTag>,
    ether_type: EtherType,
    payload: &'a [u8],
    length: usize,
}

impl<'a> VlanTags<'a> {
    /// The length of one tag with the type that follows it, in bytes.
    pub const TAG_LENGTH: usize = 4;

    /// The tags at the start of `bytes`, which the type `first` announces; none when it announces none.
    ///
    /// # Errors
    /// [`Malformation::Truncated`] when the bytes end inside a tag, [`Malformation::VlanDepth`] beyond
    /// [`MAX_VLAN_TAGS`].
    #[inline]
    pub fn new_checked(first: EtherType, bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut tags = Self { outer: None, inner: None, ether_type: first, payload: bytes, length: 0 };
        while tags.ether_type.is_vlan() {
            tags.push()?;
        }
        Ok(tags)
    }

    fn push(&mut self) -> Result<(), WireError> {
        if self.length >= MAX_VLAN_TAGS * Self::TAG_LENGTH {
            return Err(WireError::new(self.length, Malformation::VlanDepth(MAX_VLAN_TAGS)));
        }
        let [a, b, c, d] = *header::<4>(self.payload, Header::Vlan).map_err(|error| error.within(self.length))?;
        let tag = VlanTag(u16::from_be_bytes([a, b]));
        self.outer.get_or_insert(tag);
        self.inner = Some(tag);
        self.ether_type = EtherType(u16::from_be_bytes([c, d]));
        self.payload = &self.payload[Self::TAG_LENGTH..];
        self.length += Self::TAG_LENGTH;
        Ok(())
    }

    /// The first tag: the provider's, where there are two.
    #[must_use]
    pub const fn outer(&self) -> Option<VlanTag> {
        self.outer
    }

    /// The last tag, the one next to the packet.
    #[must_use]
    pub const fn inner(&self) -> Option<VlanTag> {
        self.inner
    }

    /// What the packet after the tags is.
    #[inline]
    #[must_use]
    pub const fn ether_type(&self) -> EtherType {
        self.ether_type
    }

    /// The packet after the tags.
    #[inline]
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The length of all tags together, in bytes.
    #[inline]
    #[must_use]
    pub const fn length(&self) -> usize {
        self.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_of_tags_is_walked_to_the_packet() {
        // Provider tag 100 with priority 5, customer tag 7, then IPv4.
        let bytes = [0xa0, 0x64, 0x81, 0x00, 0x00, 0x07, 0x08, 0x00, 0x45];
        let tags = VlanTags::new_checked(EtherType::PROVIDER_VLAN, &bytes).unwrap();
        let outer = tags.outer().unwrap();
        assert_eq!((outer.id(), outer.priority()), (100, 5));
        assert_eq!(tags.inner().unwrap().id(), 7);
        assert_eq!(tags.ether_type(), EtherType::IPV4);
        assert_eq!(tags.payload(), [0x45]);
        assert_eq!(tags.length(), 8);
    }

    #[test]
    fn a_frame_without_tags_has_none() {
        let tags = VlanTags::new_checked(EtherType::IPV6, &[0x60]).unwrap();
        assert_eq!((tags.outer(), tags.inner(), tags.length()), (None, None, 0));
        assert_eq!(tags.ether_type(), EtherType::IPV6);
    }

    #[test]
    fn a_cut_tag_and_an_endless_stack_are_named() {
        let error = VlanTags::new_checked(EtherType::VLAN, &[0, 1, 0x81, 0, 0]).unwrap_err();
        assert_eq!(error.offset, 5);
        assert_eq!(error.malformation, Malformation::Truncated { header: Header::Vlan, needed: 4, available: 1 });

        let endless = [0x00, 0x01, 0x81, 0x00].repeat(MAX_VLAN_TAGS + 1);
        let error = VlanTags::new_checked(EtherType::VLAN, &endless).unwrap_err();
        assert_eq!(error.malformation, Malformation::VlanDepth(MAX_VLAN_TAGS));
    }
}
