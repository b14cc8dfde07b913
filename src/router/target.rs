//! Where a match leads, and where a subscription was put: two small numbers to hand around.

/// Who serves a target: a port (a worker of the server, 0 to 1021) or the router itself.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Owner(u16);

impl Owner {
    /// In-process subscriptions, which the router holds itself. Sorts after every port.
    pub const LOCAL: Owner = Owner(1023);
    /// Number of ports. 1022 of the ten-bit range is not given out: it marks lists inside the index.
    pub const PORTS_MAX: u16 = 1022;

    /// The port with this index, if it is below [`Owner::PORTS_MAX`].
    pub const fn port(index: u16) -> Option<Owner> {
        if index < Self::PORTS_MAX {
            Some(Owner(index))
        } else {
            None
        }
    }

    /// Index of the port; 1023 for [`Owner::LOCAL`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Where a match leads, in eight bytes: owner (10 bits), generation of the owner's slot (22 bits),
/// key of that slot (32 bits). Orders by owner first.
///
/// What generation and key mean is the owner's business; the router only compares. The same target
/// must not be subscribed twice at the same time.
#[derive(Copy, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target(u64);

const GENERATION_BITS: u32 = 22;

impl Target {
    /// Largest generation; what goes beyond it is cut off.
    pub const GENERATION_MAX: u32 = (1 << GENERATION_BITS) - 1;

    /// Packs the three numbers; `generation` is masked to 22 bits.
    pub const fn new(owner: Owner, generation: u32, key: u32) -> Target {
        let high = ((owner.0 as u32) << GENERATION_BITS) | (generation & Self::GENERATION_MAX);
        Target(((high as u64) << 32) | key as u64)
    }

    /// Who serves it.
    pub const fn owner(self) -> Owner {
        Owner((self.0 >> (32 + GENERATION_BITS)) as u16)
    }

    /// Generation of the owner's slot.
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32 & Self::GENERATION_MAX
    }

    /// Slot of the owner.
    pub const fn key(self) -> u32 {
        self.0 as u32
    }

    /// The eight bytes, to be carried elsewhere.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The target with these eight bytes.
    pub const fn from_bits(bits: u64) -> Target {
        Target(bits)
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.owner().0, self.generation(), self.key())
    }
}

/// Where the router put a subscription: what [`unsubscribe`](super::Router::unsubscribe) needs
/// beside the target. Four bytes, valid until that call.
///
/// ```text
/// bits 31-30  0 literal entry, 1 subject ends at this node, 2 `>` follows this node
/// bits 29-0   slot
/// ```
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct Place(u32);

/// The three kinds of list a place may name.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum PlaceKind {
    Literal,
    Here,
    Full,
}

impl Place {
    pub(super) const fn new(kind: PlaceKind, slot: u32) -> Place {
        Place(((kind as u32) << 30) | slot)
    }

    pub(super) const fn kind(self) -> PlaceKind {
        match self.0 >> 30 {
            0 => PlaceKind::Literal,
            1 => PlaceKind::Here,
            _ => PlaceKind::Full,
        }
    }

    /// Whether the subscription is to one literal subject, and not to a wildcard.
    pub const fn is_literal(self) -> bool {
        matches!(self.kind(), PlaceKind::Literal)
    }

    pub(super) const fn slot(self) -> u32 {
        self.0 & ((1 << 30) - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_keeps_its_three_numbers() {
        for owner in [Owner::port(0), Owner::port(1021), Some(Owner::LOCAL)] {
            let owner = owner.unwrap();
            let target = Target::new(owner, 0x3f_fffe, u32::MAX - 7);
            assert_eq!(target.owner(), owner);
            assert_eq!(target.generation(), 0x3f_fffe);
            assert_eq!(target.key(), u32::MAX - 7);
            assert_eq!(Target::new(owner, u32::MAX, 0).owner(), owner, "masked");
        }
        assert_eq!(Owner::port(1022), None);
        assert_eq!(size_of::<Option<Target>>(), 16);
        assert_eq!(size_of::<Place>(), 4);
    }
}
