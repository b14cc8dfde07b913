//! Several threads at once: no stale match is served after a call returned.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::*;
use crate::router::Rng;

/// One thread subscribes and unsubscribes and says so; others look up through caches of their own
/// and must never miss what was there all the time, nor see what was gone before they asked.
#[test]
fn no_lookup_returns_what_was_unsubscribed_before_it() {
    const SUBJECTS: &[(&[u8], &[u8])] = &[
        (b"a", b"a"),
        (b"a.*", b"a.b"),
        (b"a.b.*", b"a.b.c"),
        (b"*.z", b"q.z"),
        (b"x.y", b"x.y"),
    ];
    const ROUNDS: u32 = 10_000;
    let router = Router::new();
    // Round `key` is in three phases: 3 key, its subscriptions come; 3 key + 1, they are all there;
    // 3 key + 2, they go.
    let phase = AtomicU32::new(0);
    let stop = AtomicBool::new(false);
    let settled = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let _stop = StopOnDrop(&stop);
                let mut cache = MatchCache::new();
                while !stop.load(Ordering::Acquire) {
                    for (_, published) in SUBJECTS {
                        let before = phase.load(Ordering::Acquire);
                        let found = keys(cache.lookup(&router, published));
                        let after = phase.load(Ordering::Acquire);
                        assert!(
                            found.iter().all(|&key| key >= before / 3),
                            "stale in {before}"
                        );
                        if before == after && before % 3 == 1 {
                            assert_eq!(found, [before / 3], "phase {before}");
                            settled.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
        let _stop = StopOnDrop(&stop);
        let mut key = 0;
        // Goes on until the readers have been there in the middle of a phase often enough.
        while (key < ROUNDS || settled.load(Ordering::Relaxed) < 100)
            && !stop.load(Ordering::Acquire)
        {
            let made: Vec<_> = SUBJECTS
                .iter()
                .map(|(wanted, _)| router.subscribe(wanted, None, target(key)).unwrap())
                .collect();
            phase.store(3 * key + 1, Ordering::Release);
            if key % 64 == 0 {
                std::thread::yield_now();
            }
            phase.store(3 * key + 2, Ordering::Release);
            for place in made {
                assert!(router.unsubscribe(place, target(key)));
            }
            key += 1;
            phase.store(3 * key, Ordering::Release);
        }
    });
}

/// Two threads churn, two look up; at the end everything agrees and nothing is left.
#[test]
fn threads_that_churn_and_threads_that_match_do_not_disturb_each_other() {
    let router = Router::new();
    router
        .subscribe(b"steady.*", None, target(u32::MAX))
        .unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        let readers: Vec<_> = (0..2)
            .map(|seed| {
                let (router, stop) = (&router, &stop);
                scope.spawn(move || {
                    let mut cache = MatchCache::new();
                    let mut rng = Rng::new(seed);
                    while !stop.load(Ordering::Acquire) {
                        let subject = format!("steady.{}", rng.below(100));
                        let found = keys(cache.lookup(router, subject.as_bytes()));
                        assert!(found.contains(&u32::MAX), "{subject}");
                    }
                })
            })
            .collect();
        let writers: Vec<_> = (0..2u32)
            .map(|writer| {
                let router = &router;
                scope.spawn(move || {
                    let mut rng = Rng::new(u64::from(writer) + 9);
                    let mut places = Vec::new();
                    for step in 0..20_000u32 {
                        let target = Target::new(Owner::port(1).unwrap(), writer, step);
                        let subject = match rng.below(4) {
                            0 => format!("steady.{}", rng.below(100)),
                            1 => format!("*.{}", rng.below(100)),
                            2 => format!("other.{}.>", rng.below(1000)),
                            _ => "steady.>".to_owned(),
                        };
                        let place = router.subscribe(subject.as_bytes(), None, target).unwrap();
                        places.push((place, target));
                        if places.len() > 200 {
                            let at = rng.below(places.len() as u32) as usize;
                            let (place, target) = places.swap_remove(at);
                            assert!(router.unsubscribe(place, target));
                        }
                    }
                    router.unsubscribe_all(places);
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        stop.store(true, Ordering::Release);
        for reader in readers {
            reader.join().unwrap();
        }
    });
    assert_eq!(router.stats().subscriptions, 1);
    assert_eq!(router.stats().nodes, 3);
}
