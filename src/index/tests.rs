use super::*;

fn at(day: u32, offset: u64) -> Position {
    Position { day, offset }
}

/// The queue id of the `number`th message of a day.
fn id(day: u32, number: u64) -> Key {
    let id = QueueId::from_u64(((u64::from(day) * 86_400_000 + number) << 20) | number);
    Key::story(&id.to_string())
}

/// Everything that a sweep before `day` removes, in steps of two rows.
fn forget(index: &Index, day: u32) {
    let mut sweep = Sweep::before(day);
    while !index.forget(&mut sweep, 2).unwrap() {}
}

#[test]
fn keys_are_found_without_case_and_without_their_neighbours() {
    let folder = tempfile::tempdir().unwrap();
    let index = Index::open(&folder.path().join("index")).unwrap();
    let (bob, evil) = (
        Key::name("Bob@Contoso.com"),
        Key::name("bob@contoso.com.evil"),
    );
    assert_eq!(bob, Key::name("bob@contoso.com"));
    assert_eq!(Key::name("ÄDA@contoso.com"), Key::name("äda@contoso.com"));
    for written in [false, true] {
        if written {
            index.flush().unwrap();
        } else {
            index.gather(&[evil, id(1, 1)], at(1, 1), 2).unwrap();
            index.gather(&[bob, id(1, 2)], at(1, 500), 600).unwrap();
            index.gather(&[bob, id(1, 2)], at(2, 7), 10).unwrap();
        }
        assert_eq!(index.find(bob, 10).unwrap(), [at(1, 500), at(2, 7)]);
        assert_eq!(index.find(bob, 1).unwrap(), [at(2, 7)], "the newest");
        assert_eq!(index.find(id(1, 2), 10).unwrap(), [at(1, 500), at(2, 7)]);
        assert_eq!(index.find(id(1, 3), 10).unwrap(), []);
        assert_eq!(index.read_until(1).unwrap(), 600);
        assert_eq!(index.read_until(3).unwrap(), 0);
    }
    forget(&index, 2);
    assert_eq!(index.find(bob, 10).unwrap(), [at(2, 7)]);
    assert_eq!(
        index.find(id(1, 2), 10).unwrap(),
        [at(2, 7)],
        "it arrived before"
    );
    assert_eq!(index.find(evil, 10).unwrap(), []);
    assert_eq!(index.find(id(1, 1), 10).unwrap(), []);
    assert_eq!(index.read_until(1).unwrap(), 0);
    assert_eq!(index.read_until(2).unwrap(), 10);
}

/// Opens it once more. A child that another test of this process starts holds the lock, too, until it has become its program.
fn reopened(path: &Path) -> Index {
    #[expect(clippy::disallowed_methods, reason = "the bound of a wait")]
    let now = std::time::Instant::now;
    let deadline = now() + std::time::Duration::from_secs(10);
    loop {
        match Index::open(path) {
            Err(IndexError::Locked) if now() < deadline => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

#[test]
fn many_runs_keep_every_position_in_order_also_of_a_name_that_all_share() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let index = Index::open(&path).unwrap();
    let all = Key::name("erp@contoso.com");
    let events: u64 = 60_000;
    let mut end = 0;
    for event in 0..events {
        // Two days in turn: events of two days meet at midnight.
        let position = at(20_000 + u32::from(event % 3 == 2), end);
        end += 100;
        let keys = [
            id(20_000, event / 2),
            all,
            Key::name(&format!("m{event}@x")),
        ];
        index.gather(&keys, position, end).unwrap();
    }
    let check = |index: &Index| {
        let found = index.find(all, usize::MAX).unwrap();
        assert_eq!(found.len() as u64, events);
        assert!(found.is_sorted());
        let newest = index.find(all, 300).unwrap();
        assert!(found.ends_with(&newest) && newest.len() == 300);
        for event in (0..events).step_by(997) {
            let own = index.find(Key::name(&format!("M{event}@x")), 10).unwrap();
            assert_eq!(own, [at(20_000 + u32::from(event % 3 == 2), event * 100)]);
            assert_eq!(index.find(id(20_000, event / 2), 10).unwrap().len(), 2);
        }
    };
    check(&index);
    index.flush().unwrap();
    drop(index);
    let index = reopened(&path);
    check(&index);
    forget(&index, 20_001);
    assert_eq!(
        index.find(all, usize::MAX).unwrap().len() as u64,
        events / 3
    );
}

#[test]
fn a_lock_is_no_damage_and_damage_is_put_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let first = Index::open(&path).unwrap();
    assert!(matches!(Index::open(&path), Err(IndexError::Locked)));
    first.gather(&[Key::name("a")], at(1, 1), 2).unwrap();
    first.flush().unwrap();
    drop(first);
    assert_eq!(reopened(&path).read_until(1).unwrap(), 2);
    std::fs::write(path.join("conf"), b"not sled's").unwrap();
    std::fs::write(path.join("db"), b"garbage").unwrap();
    let again = reopened(&path);
    assert_eq!(again.read_until(1).unwrap(), 0, "new");
    assert!(folder.path().join("index.damaged-1").exists());
}

#[test]
fn an_index_of_the_version_before_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let old = sled::open(&path).unwrap();
    old.open_tree(OLD_TREE).unwrap().insert("a", "").unwrap();
    drop(old);
    let index = reopened(&path);
    assert!(!index.0.db.tree_names().iter().any(|name| name == OLD_TREE));
    assert!(!folder.path().join("index.damaged-1").exists());
}
