//! Every row of the match table, with a cold cache, a warm one, and after an unrelated change.

use super::*;

const YES: bool = true;
const NO: bool = false;

/// Subscription, published subject, whether it matches. Source: core-protocol section 3.3.
const ROWS: &[(&str, &str, bool)] = &[
    ("foo", "foo", YES),
    ("foo", "Foo", NO),
    ("foo", "foo.bar", NO),
    ("foo.bar", "foo", NO),
    ("foo.*", "foo", NO),
    ("foo.*", "foo.bar", YES),
    ("foo.*", "foo.bar.baz", NO),
    ("foo.*", "foo.", NO),
    ("*", "foo", YES),
    ("*", "foo.bar", NO),
    ("*.*", "foo.bar", YES),
    ("*.*", "foo", NO),
    ("*.bar", "foo.bar", YES),
    ("*.bar", "bar", NO),
    ("foo.*.baz", "foo.bar.baz", YES),
    ("foo.*.baz", "foo..baz", NO),
    (">", "foo", YES),
    (">", "foo.bar.baz", YES),
    (">", "$SYS.x", YES),
    ("*", "$SYS", YES),
    ("*.x", "$SYS.x", YES),
    ("foo.>", "foo", NO),
    (">", ".foo", NO),
    (">", "foo.", NO),
    (">", ".", NO),
    (">", "", NO),
    ("*.*", ".", NO),
    ("foo.bar", "foo..bar", NO),
    ("é.*", "é.ü", YES),
    ("foo.>", "foo.bar", YES),
    ("foo.>", "foo.bar.baz", YES),
    ("foo.>", "foobar", NO),
    ("*.>", "foo", NO),
    ("*.>", "foo.bar", YES),
    ("foo.*.>", "foo.bar", NO),
    ("foo.*.>", "foo.bar.baz", YES),
    ("foo.**", "foo.**", YES),
    ("foo.**", "foo.bar", NO),
    ("foo.*bar", "foo.xbar", NO),
    ("foo.*bar", "foo.*bar", YES),
    ("foo.b*", "foo.bar", NO),
    ("foo>", "foo>", YES),
    ("foo>", "foo.bar", NO),
    (">foo", ">foo", YES),
    (">>", ">>", YES),
    (">>", "foo", NO),
    ("foo.*", "foo.*", YES),
    ("foo.>", "foo.*", YES),
    ("foo.bar", "foo.*", NO),
    ("*", "*", YES),
    ("*", ">", YES),
    (">", ">", YES),
    ("foo", "*", NO),
    ("foo.>", "foo.>", YES),
    ("foo.*", "foo.>", YES),
    ("foo.b>r", "foo.b>r", YES),
    ("_INBOX.>", "_INBOX.a.1", YES),
];

#[test]
fn every_row_holds_cold_cached_and_after_unrelated_changes() {
    for &(wanted, published, expected) in ROWS {
        let row = format!("{wanted} <- {published}");
        let expected = if expected { vec![7] } else { vec![] };
        let router = Router::new();
        let place = router
            .subscribe(wanted.as_bytes(), None, target(7))
            .unwrap();
        let mut cache = MatchCache::new();
        let mut cold = Matches::default();
        router.matches(published.as_bytes(), &mut cold);
        assert_eq!(keys(&cold), expected, "{row} cold");
        assert_eq!(
            cached_keys(&mut cache, &router, published.as_bytes()),
            expected,
            "{row} cached"
        );
        assert!(cache.stats().hits > 0, "{row} never came from the cache");
        for unrelated in ["zzz", "zzz.*", "foo.zzz", "zzz.>", "*.*.*.*.zzz"] {
            let other = router
                .subscribe(unrelated.as_bytes(), None, target(8))
                .unwrap();
            let after = cached_keys(&mut cache, &router, published.as_bytes());
            assert_eq!(after, expected, "{row} after {unrelated}");
            assert!(router.unsubscribe(other, target(8)));
        }
        assert_eq!(
            cached_keys(&mut cache, &router, published.as_bytes()),
            expected,
            "{row}"
        );
        assert!(router.unsubscribe(place, target(7)));
        assert_eq!(
            cached_keys(&mut cache, &router, published.as_bytes()),
            [0u32; 0],
            "{row} gone"
        );
    }
}

#[test]
fn rows_agree_with_all_subscribed_at_once() {
    let router = Router::new();
    for (key, &(wanted, _, _)) in ROWS.iter().enumerate() {
        router
            .subscribe(wanted.as_bytes(), None, target(key as u32))
            .unwrap();
    }
    let mut cache = MatchCache::new();
    for &(_, published, _) in ROWS {
        let expected: Vec<u32> = (0..ROWS.len() as u32)
            .filter(|&key| {
                crate::subject::matches(ROWS[key as usize].0.as_bytes(), published.as_bytes())
            })
            .collect();
        assert_eq!(
            cached_keys(&mut cache, &router, published.as_bytes()),
            expected,
            "{published}"
        );
    }
}

#[test]
fn invalid_subjects_are_refused() {
    let router = Router::new();
    for subject in ["", ".", "foo.", ".foo", "foo..bar", "foo.>.bar", ">.a"] {
        let refused = router.subscribe(subject.as_bytes(), None, target(1));
        assert_eq!(
            refused,
            Err(crate::router::SubjectError::Invalid),
            "{subject}"
        );
    }
    assert_eq!(router.stats().subscriptions, 0);
}

#[test]
fn very_long_and_very_deep_subjects_match() {
    let router = Router::new();
    let deep = vec!["a"; 2000].join(".");
    let long = "x".repeat(4000);
    let stars = vec!["*"; 2000].join(".");
    let long_star = format!("{long}.*");
    for (key, subject) in [&deep, &long, &stars, &long_star].into_iter().enumerate() {
        router
            .subscribe(subject.as_bytes(), None, target(key as u32))
            .unwrap();
    }
    let deepest = format!("{deep}.>");
    router
        .subscribe(deepest.as_bytes(), None, target(9))
        .unwrap();
    let mut cache = MatchCache::new();
    assert_eq!(cached_keys(&mut cache, &router, deep.as_bytes()), [0, 2]);
    assert_eq!(cached_keys(&mut cache, &router, long.as_bytes()), [1]);
    assert_eq!(
        cached_keys(&mut cache, &router, format!("{long}.q").as_bytes()),
        [3]
    );
    assert_eq!(
        cached_keys(&mut cache, &router, format!("{deep}.b").as_bytes()),
        [9]
    );
}

#[test]
fn a_queue_group_spans_the_subjects_of_its_members() {
    let router = Router::new();
    router
        .subscribe(b"foo.bar", Some(b"q.*"), target(1))
        .unwrap();
    router.subscribe(b"foo.*", Some(b"q.*"), target(2)).unwrap();
    router.subscribe(b"foo.>", Some(b"q.*"), target(3)).unwrap();
    router.subscribe(b"foo.bar", Some(b"r"), target(4)).unwrap();
    router.subscribe(b"foo.bar", None, target(5)).unwrap();
    router.subscribe(b"foo.*", None, target(6)).unwrap();
    let mut cache = MatchCache::new();
    assert_eq!(cached_keys(&mut cache, &router, b"foo.bar"), [5, 6]);
    let mut groups: Vec<(String, Vec<u32>)> = cache
        .lookup(&router, b"foo.bar")
        .groups
        .iter()
        .map(|group| {
            let mut members: Vec<u32> = group.members.iter().map(|t| t.key()).collect();
            members.sort_unstable();
            (String::from_utf8_lossy(&group.name).into_owned(), members)
        })
        .collect();
    groups.sort();
    assert_eq!(
        groups,
        [("q.*".to_owned(), vec![1, 2, 3]), ("r".to_owned(), vec![4])]
    );
}

#[test]
fn a_place_tells_its_subject_and_queue() {
    let router = Router::new();
    let rows: &[(&[u8], Option<&[u8]>)] = &[
        (b"foo.bar", None),
        (b"foo.bar", Some(b"q")),
        (b"foo.*.>", Some(b"q")),
        (b">", None),
        (b"*.x", None),
    ];
    let places: Vec<_> = (0u32..)
        .zip(rows)
        .map(|(key, (subject, queue))| router.subscribe(subject, *queue, target(key)).unwrap())
        .collect();
    for (key, (subject, queue)) in (0u32..).zip(rows) {
        let mut told = 0;
        router.describe(
            places[key as usize],
            target(key),
            &mut |known_subject, known_queue| {
                assert_eq!((known_subject, known_queue), (*subject, *queue));
                told += 1;
            },
        );
        assert_eq!(told, 1);
    }
    router.describe(places[0], target(99), &mut |_, _| panic!("not there"));
}

#[test]
fn targets_come_sorted_by_owner() {
    let router = Router::new();
    for key in 0..300u32 {
        let owner = Owner::port((key * 7 % 5) as u16).unwrap();
        router
            .subscribe(b"a", None, Target::new(owner, 0, key))
            .unwrap();
    }
    let mut matches = Matches::default();
    router.matches(b"a", &mut matches);
    assert_eq!(matches.plain.len(), 300);
    assert!(matches.plain.is_sorted_by_key(|target| target.owner()));
}

#[test]
fn one_cache_may_serve_several_routers() {
    let (a, b) = (Router::new(), Router::new());
    a.subscribe(b"x", None, target(1)).unwrap();
    b.subscribe(b"x", None, target(2)).unwrap();
    let mut cache = MatchCache::new();
    assert_eq!(cached_keys(&mut cache, &a, b"x"), [1]);
    assert_eq!(cached_keys(&mut cache, &b, b"x"), [2]);
    assert_eq!(keys(cache.lookup(&a, b"x")), [1]);
}
