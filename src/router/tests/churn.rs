//! The router against the plain definition of a match, under random changes; and its memory.

use proptest::prelude::*;

use super::*;
use crate::router::{Place, Rng};

const TOKENS: &[&str] = &["a", "b", "c", "*", ">", "a*", ">>", ""];
const QUEUES: &[Option<&[u8]>] = &[None, None, None, Some(b"q"), Some(b"r")];

#[derive(Clone, Debug)]
enum Step {
    Subscribe(String, usize),
    Unsubscribe(usize),
    Publish(String),
}

fn subjects() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(TOKENS), 1..5).prop_map(|tokens| tokens.join("."))
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (subjects(), 0..QUEUES.len()).prop_map(|(s, queue)| Step::Subscribe(s, queue)),
        2 => any::<usize>().prop_map(Step::Unsubscribe),
        4 => subjects().prop_map(Step::Publish),
    ];
    prop::collection::vec(step, 1..120)
}

struct Known {
    subject: String,
    queue: Option<&'static [u8]>,
    target: Target,
    place: Place,
}

/// (queue, key) of all that a match holds, sorted.
fn flat(matches: &Matches) -> Vec<(Option<Vec<u8>>, u32)> {
    let plain = matches.plain.iter().map(|target| (None, target.key()));
    let queued = matches.groups.iter().flat_map(|group| {
        group
            .members
            .iter()
            .map(|target| (Some(group.name.to_vec()), target.key()))
    });
    let mut all: Vec<_> = plain.chain(queued).collect();
    all.sort();
    all
}

fn expected(known: &[Known], subject: &str) -> Vec<(Option<Vec<u8>>, u32)> {
    let mut all: Vec<_> = known
        .iter()
        .filter(|sub| crate::subject::matches(sub.subject.as_bytes(), subject.as_bytes()))
        .map(|sub| (sub.queue.map(<[u8]>::to_vec), sub.target.key()))
        .collect();
    all.sort();
    all
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// After any history, a cold match, a cached one and one of a cache that missed much of the
    /// history agree with the plain matcher; a group is listed once; at the end nothing is left.
    #[test]
    fn the_router_agrees_with_the_plain_matcher(steps in steps()) {
        let router = Router::new();
        let mut cache = MatchCache::new();
        let mut sleepy_cache = MatchCache::new();
        let mut known: Vec<Known> = Vec::new();
        let mut published: Vec<String> = Vec::new();
        for (step_index, step) in steps.into_iter().enumerate() {
            match step {
                Step::Subscribe(subject, queue) => {
                    let (target, queue) = (target(step_index as u32), QUEUES[queue]);
                    let is_valid = crate::subject::is_valid_subscribe(subject.as_bytes());
                    match router.subscribe(subject.as_bytes(), queue, target) {
                        Ok(place) => known.push(Known { subject, queue, target, place }),
                        Err(_) => prop_assert!(!is_valid),
                    }
                }
                Step::Unsubscribe(which) if !known.is_empty() => {
                    let gone = known.swap_remove(which % known.len());
                    prop_assert!(router.unsubscribe(gone.place, gone.target));
                    prop_assert!(!router.unsubscribe(gone.place, gone.target), "twice");
                }
                Step::Unsubscribe(_) => {}
                Step::Publish(subject) => {
                    let expected = expected(&known, &subject);
                    let mut cold = Matches::default();
                    router.matches(subject.as_bytes(), &mut cold);
                    prop_assert_eq!(&flat(&cold), &expected, "{} cold", subject);
                    for _ in 0..3 {
                        let cached = flat(cache.lookup(&router, subject.as_bytes()));
                        prop_assert_eq!(&cached, &expected, "{} cached", subject);
                    }
                    published.push(subject);
                }
            }
            if step_index % 16 == 0 {
                for subject in &published {
                    let cached = flat(sleepy_cache.lookup(&router, subject.as_bytes()));
                    prop_assert_eq!(cached, expected(&known, subject), "{} later", subject);
                }
            }
        }
        prop_assert_eq!(router.stats().subscriptions, known.len());
        router.unsubscribe_all(known.iter().map(|sub| (sub.place, sub.target)));
        prop_assert!(router.read().is_pristine());
    }
}

/// A hundred thousand subscriptions of every kind come and go; not a byte of the index is left.
#[test]
fn memory_goes_back_when_all_unsubscribed() {
    let router = Router::new();
    let mut places = Vec::new();
    for key in 0..100_000u32 {
        let queue = (key % 7 == 0).then_some(&b"workers"[..]);
        let subject = match key % 10 {
            0 => format!("plant.line{}.*", key / 3),
            1 => format!("plant.*.cell{key}.>"),
            2 => "plant.everything".to_owned(),
            _ => format!("plant.line{}.cell{}.temperature", key / 100, key / 2),
        };
        places.push((
            router
                .subscribe(subject.as_bytes(), queue, target(key))
                .unwrap(),
            target(key),
        ));
    }
    let full = router.stats();
    assert_eq!(full.subscriptions, 100_000);
    let (half, rest) = places.split_at(50_000);
    assert_eq!(router.unsubscribe_all(half.iter().copied()), 50_000);
    assert_eq!(router.unsubscribe_all(rest[1000..].iter().copied()), 49_000);
    let small = router.stats().index_bytes;
    assert!(
        small < full.index_bytes / 8,
        "{small} of {} bytes",
        full.index_bytes
    );
    assert_eq!(router.unsubscribe_all(rest[..1000].iter().copied()), 1000);
    assert!(router.read().is_pristine());
    assert_eq!(router.unsubscribe_all(places.iter().copied()), 0, "twice");
}

/// A big list is left in random order; each step is checked by what remains.
#[test]
fn a_subject_with_many_subscribers_loses_exactly_those_who_leave() {
    for queue in [None, Some(&b"q"[..])] {
        let router = Router::new();
        let mut rng = Rng::new(5);
        let mut there: Vec<_> = (0..5000u32)
            .map(|key| {
                (
                    router.subscribe(b"hot", queue, target(key)).unwrap(),
                    target(key),
                )
            })
            .collect();
        let mut matches = Matches::default();
        while !there.is_empty() {
            for _ in 0..there.len().min(250) {
                let (place, gone) = there.swap_remove(rng.below(there.len() as u32) as usize);
                assert!(router.unsubscribe(place, gone));
            }
            router.matches(b"hot", &mut matches);
            let mut left: Vec<_> = matches.plain.to_vec();
            left.extend(matches.groups.iter().flat_map(|group| group.members.iter()));
            left.sort_unstable();
            let mut expected: Vec<_> = there.iter().map(|&(_, target)| target).collect();
            expected.sort_unstable();
            assert_eq!(left, expected);
        }
        assert!(router.read().is_pristine());
    }
}

#[test]
fn many_queue_groups_on_a_subject_are_merged_by_name() {
    let router = Router::new();
    for key in 0..100u32 {
        let queue = format!("q{key}");
        router
            .subscribe(b"a.b", Some(queue.as_bytes()), target(key))
            .unwrap();
        router
            .subscribe(b"a.*", Some(queue.as_bytes()), target(1000 + key))
            .unwrap();
    }
    let mut matches = Matches::default();
    for _ in 0..2 {
        router.matches(b"a.b", &mut matches);
        assert_eq!(matches.groups.len(), 100);
        for group in &matches.groups {
            let mut keys: Vec<u32> = group.members.iter().map(|t| t.key()).collect();
            keys.sort_unstable();
            assert_eq!(*group.name, *format!("q{}", keys[0]).as_bytes());
            assert_eq!(keys[1..], [1000 + keys[0]]);
        }
    }
}

/// Once-used subjects, many more than the cache holds, do not push out the ones in use.
#[test]
fn reply_subjects_do_not_evict_useful_entries() {
    let router = Router::new();
    router.subscribe(b"_INBOX.x.*", None, target(1)).unwrap();
    let useful: Vec<String> = (0..500).map(|n| format!("orders.{n}")).collect();
    let mut cache = MatchCache::new();
    let hits = |cache: &mut MatchCache| {
        let before = cache.stats().hits;
        for subject in &useful {
            cache.lookup(&router, subject.as_bytes());
        }
        cache.stats().hits - before
    };
    for _ in 0..4 {
        hits(&mut cache);
    }
    let hits_before = hits(&mut cache);
    assert!(hits_before >= 450, "{hits_before} of 500 in the cache");
    for n in 0..100_000 {
        cache.lookup(&router, format!("_INBOX.x.{n}").as_bytes());
    }
    let hits_after = hits(&mut cache);
    assert!(
        hits_after + 10 >= hits_before,
        "{hits_after} of {hits_before} still there"
    );
}

#[test]
fn a_cache_stays_within_its_bounds() {
    let router = Router::new();
    for key in 0..1_000_000 {
        if key < 20_000 {
            router.subscribe(b"wide.>", None, target(key)).unwrap();
        }
        if key % 2 == 0 {
            router.subscribe(b"huge", None, target(key)).unwrap();
        }
    }
    let mut cache = MatchCache::new();
    for _ in 0..3 {
        assert_eq!(cache.lookup(&router, b"huge").plain.len(), 500_000);
    }
    assert_eq!(cache.stats().entries, 0, "too big to keep");
    for n in 0..300 {
        let subject = format!("wide.{n}");
        for _ in 0..2 {
            assert_eq!(
                cache.lookup(&router, subject.as_bytes()).plain.len(),
                20_000
            );
        }
        assert!(cache.stats().bytes <= 16 * 1024 * 1024);
    }
    assert!(cache.stats().entries > 50);
    let mut small = MatchCache::new();
    for n in 0..50_000 {
        let subject = format!("small.{n}");
        for _ in 0..3 {
            small.lookup(&router, subject.as_bytes());
        }
    }
    let entries = small.stats().entries;
    assert!((8000..=16_384).contains(&entries), "{entries}");
}
