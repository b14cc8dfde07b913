//! Which member of a queue group gets a message: a uniform random start, then the next in order.

use super::{Group, Target};

/// A small random number generator for picking, one per publishing thread; not for secrets.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator with the same numbers for the same seed.
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// A generator with a seed of its own.
    pub fn from_entropy() -> Rng {
        use std::hash::{BuildHasher, Hasher};
        Rng(foldhash::quality::RandomState::default()
            .build_hasher()
            .finish())
    }

    /// The next 64 bits (the wyrand step: one multiplication).
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0xA076_1D64_78BD_642F);
        let product = u128::from(self.0) * u128::from(self.0 ^ 0xE703_7ED1_A0B4_28DB);
        (product >> 64) as u64 ^ product as u64
    }

    /// A number below `bound`, evenly enough (bias below one in 2^32 / bound); 0 if `bound` is 0.
    #[inline]
    pub fn below(&mut self, bound: u32) -> u32 {
        ((u64::from(self.next_u64() as u32) * u64::from(bound)) >> 32) as u32
    }
}

/// Picks the member that gets the message: a random one, or the next in order that is `able`.
/// `None` if no member is. Every member is asked once at most.
///
/// Source: core-protocol section 4, "Selection".
#[inline]
pub fn pick(group: &Group, rng: &mut Rng, mut able: impl FnMut(Target) -> bool) -> Option<Target> {
    let count = group.members.len();
    let start = rng.below(count.min(u32::MAX as usize) as u32) as usize;
    let (before, after) = group.members.split_at_checked(start)?;
    after
        .iter()
        .chain(before)
        .copied()
        .find(|&member| able(member))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::Owner;

    fn group(count: u32) -> Group {
        let owner = Owner::port(0).unwrap();
        Group::new(b"q", (0..count).map(|key| Target::new(owner, 0, key)))
    }

    #[test]
    fn members_are_picked_evenly() {
        for count in [1u32, 2, 3, 8, 10] {
            let group = group(count);
            let mut rng = Rng::new(1);
            let mut picked = vec![0u32; count as usize];
            for _ in 0..1000 * count {
                let target = pick(&group, &mut rng, |_| true).unwrap();
                picked[target.key() as usize] += 1;
            }
            assert!(
                picked.iter().all(|n| (800..=1200).contains(n)),
                "{picked:?}"
            );
        }
    }

    #[test]
    fn a_member_that_is_not_able_is_passed_over() {
        let group = group(4);
        let mut rng = Rng::new(2);
        for _ in 0..100 {
            let target = pick(&group, &mut rng, |member| member.key() == 2).unwrap();
            assert_eq!(target.key(), 2);
        }
        let mut asked = 0;
        let nobody = pick(&group, &mut rng, |_| {
            asked += 1;
            false
        });
        assert_eq!((nobody, asked), (None, 4));
        assert_eq!(pick(&self::group(0), &mut rng, |_| true), None);
    }
}
