//! The table on disk.

use super::*;
use crate::tests::table;

fn open(path: &std::path::Path) -> (TableStore, TableStoreDriver) {
    let (store, _, driver) = TableStore::open(Some(path.to_owned())).unwrap();
    (store, driver)
}

#[tokio::test]
async fn a_table_is_there_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/table.snapshot");
    let (store, driver) = open(&path);
    assert_eq!(store.table().revision(), Revision::default());
    let revision = store.apply(&table(3, 7)).unwrap();
    // A driver that is told to stop at once still writes.
    driver.run(std::future::ready(())).await;
    let (again, _) = open(&path);
    assert_eq!(again.table().revision(), revision);
    assert_eq!(again.table().instances().count(), 3);
    assert_eq!(
        again.table().manifests().collect::<Vec<_>>().len(),
        store.table().manifests().collect::<Vec<_>>().len()
    );
}

#[tokio::test]
async fn changes_are_written_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table");
    let (store, driver) = open(&path);
    let task = tokio::spawn(driver.run(std::future::pending()));
    for sequence in 1..5 {
        store.apply(&table(1, sequence)).unwrap();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while file::load(&path).unwrap().revision().sequence != sequence {
            assert!(tokio::time::Instant::now() < deadline);
            sleep(Duration::from_millis(10)).await;
        }
    }
    task.abort();
}

#[tokio::test]
async fn a_broken_snapshot_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table");
    let (store, driver) = open(&path);
    store.apply(&table(2, 1)).unwrap();
    driver.run(std::future::ready(())).await;
    let good = std::fs::read(&path).unwrap();
    let mut broken = vec![
        Vec::new(),
        b"garbage".to_vec(),
        good[..good.len() - 1].to_vec(),
    ];
    for place in [0, 10, 20, 30, good.len() - 1] {
        let mut bytes = good.clone();
        bytes[place] ^= 1;
        broken.push(bytes);
    }
    for bytes in broken {
        std::fs::write(&path, bytes).unwrap();
        assert!(file::load(&path).is_err());
        let (store, _) = open(&path);
        assert_eq!(store.table().revision(), Revision::default());
    }
}

#[test]
fn a_folder_that_cant_be_written_is_told_by_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let blocked = folder.path().join("file");
    std::fs::write(&blocked, "").unwrap();
    let path = blocked.join("table");
    let error = TableStore::open(Some(path.clone()))
        .unwrap_err()
        .to_string();
    assert!(error.contains(&path.display().to_string()), "{error}");
    assert!(error.contains("can write"), "{error}");
}

#[test]
fn updates_are_shown_to_all_and_older_ones_refused() {
    let (store, watcher, _) = TableStore::open(None).unwrap();
    store.apply(&table(1, 5)).unwrap();
    assert_eq!(watcher.borrow().revision().sequence, 5);
    assert!(matches!(
        store.apply(&table(1, 4)),
        Err(ApplyError::Older { .. })
    ));
    let mut next = table(2, 9);
    next.from = Some(Revision {
        epoch: 1,
        sequence: 8,
    });
    assert!(matches!(store.apply(&next), Err(ApplyError::Gap { .. })));
    assert_eq!(store.table().revision().sequence, 5);
}
