//! Every store does what the layers rely on; the local one also after a crash.

use std::{fs, path::Path as FsPath, sync::Arc};

use engine::store::{self, DurableLocal, Store};
use futures::{StreamExt, TryStreamExt, future::join_all, stream};
use object_store::{Error, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutPayload, path::Path};

struct Opened {
    store: Store,
    _folder: Option<tempfile::TempDir>,
}

fn all() -> Vec<Opened> {
    let folder = tempfile::tempdir().unwrap();
    let local = store::open(folder.path().to_str().unwrap()).unwrap();
    let memory = store::open("memory:").unwrap();
    // A part of a store is a store.
    let within = tempfile::tempdir().unwrap();
    let local_part = store::open(within.path().to_str().unwrap()).unwrap().under("a/b").unwrap();
    let memory_part = store::open("memory:").unwrap().under("a/b").unwrap();
    vec![
        Opened { store: local, _folder: Some(folder) },
        Opened { store: memory, _folder: None },
        Opened { store: local_part, _folder: Some(within) },
        Opened { store: memory_part, _folder: None },
    ]
}

fn local(folder: &FsPath) -> DurableLocal {
    DurableLocal::open(folder).unwrap()
}

async fn read(objects: &dyn ObjectStore, key: &str) -> String {
    let bytes = objects.get(&Path::from(key)).await.unwrap().bytes().await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn keys(objects: &dyn ObjectStore, prefix: Option<&str>, offset: Option<&str>) -> Vec<String> {
    let prefix = prefix.map(Path::from);
    let listed = match offset {
        Some(offset) => objects.list_with_offset(prefix.as_ref(), &Path::from(offset)),
        None => objects.list(prefix.as_ref()),
    };
    listed.map_ok(|meta| meta.location.to_string()).try_collect().await.unwrap()
}

fn is_not_found<T>(result: object_store::Result<T>) -> bool {
    matches!(result, Err(Error::NotFound { .. }))
}

fn is_taken<T>(result: object_store::Result<T>) -> bool {
    matches!(result, Err(Error::AlreadyExists { .. }))
}

#[tokio::test]
async fn what_was_put_is_got() {
    for opened in all() {
        let objects = opened.store.objects();
        let key = Path::from("deep/er/object+0+0000000001.json");
        let payload = PutPayload::from_iter(["one ", "two ", "three"].map(bytes::Bytes::from));
        let put = objects.put(&key, payload).await.unwrap();
        let meta = objects.head(&key).await.unwrap();
        assert_eq!((meta.size, &meta.e_tag), (13, &put.e_tag), "{}", opened.store);
        assert_eq!(read(&*objects, key.as_ref()).await, "one two three");
        assert_eq!(objects.get_range(&key, 4..7).await.unwrap(), "two");
        assert_eq!(objects.get_ranges(&key, &[0..3, 8..13]).await.unwrap(), ["one", "three"]);

        objects.put(&key, "over".into()).await.unwrap();
        assert_eq!(read(&*objects, key.as_ref()).await, "over");
        objects.put(&Path::from("empty"), PutPayload::new()).await.unwrap();
        assert_eq!(read(&*objects, "empty").await, "");
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    for opened in all() {
        let objects = opened.store.objects();
        let [missing, other] = ["not/there", "other"].map(Path::from);
        assert!(is_not_found(objects.get(&missing).await));
        assert!(is_not_found(objects.head(&missing).await));
        assert!(is_not_found(objects.copy(&missing, &other).await));
        assert!(is_not_found(objects.rename(&missing, &other).await));
        assert!(is_not_found(objects.rename_if_not_exists(&missing, &other).await));
        assert_eq!(keys(&*objects, Some("not"), None).await, [""; 0]);
        assert!(objects.list_with_delimiter(Some(&missing)).await.unwrap().objects.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_creators_exactly_one_wins() {
    for opened in all() {
        let objects = opened.store.objects();
        for round in 0..20 {
            let key = Path::from(format!("round/{round}/object"));
            let put = |n: usize| {
                let (objects, key) = (opened.store.objects(), key.clone());
                tokio::spawn(async move { objects.put_opts(&key, format!("{n}").into(), PutMode::Create.into()).await })
            };
            let results: Vec<_> = join_all((0..8).map(put)).await.into_iter().map(Result::unwrap).collect();
            let winners: Vec<usize> = (0..8).filter(|n| results[*n].is_ok()).collect();
            assert_eq!(winners.len(), 1, "{results:?}");
            assert_eq!(results.into_iter().filter(|r| matches!(r, Err(Error::AlreadyExists { .. }))).count(), 7);
            assert_eq!(read(&*objects, key.as_ref()).await, winners[0].to_string());
        }
        assert_eq!(keys(&*objects, None, None).await.len(), 20, "no temporary file is seen as an object");
    }
}

#[tokio::test]
async fn lists_are_in_the_order_of_keys() {
    let names = ["a", "a.b", "a/b", "a/b.c", "a/b/c", "a/b0", "a0", "b/z/1", "b/z/2"];
    for opened in all() {
        let objects = opened.store.objects();
        for name in names.iter().rev() {
            // A folder and an object cannot share a name in a file system.
            if !["a", "a/b"].contains(name) {
                objects.put(&Path::from(*name), (*name).into()).await.unwrap();
            }
        }
        let expected = ["a.b", "a/b.c", "a/b/c", "a/b0", "a0", "b/z/1", "b/z/2"];
        assert_eq!(keys(&*objects, None, None).await, expected, "{}", opened.store);
        assert_eq!(keys(&*objects, Some("a"), None).await, ["a/b.c", "a/b/c", "a/b0"]);
        assert_eq!(keys(&*objects, Some("b/z"), None).await, ["b/z/1", "b/z/2"]);
        for offset in names {
            let after: Vec<_> = expected.into_iter().filter(|name| *name > offset).collect();
            assert_eq!(keys(&*objects, None, Some(offset)).await, after, "after {offset}");
        }
        assert_eq!(keys(&*objects, Some("a"), Some("a/b.c")).await, ["a/b/c", "a/b0"]);

        let level = objects.list_with_delimiter(None).await.unwrap();
        assert_eq!(level.common_prefixes, ["a", "b"].map(Path::from));
        assert_eq!(level.objects.iter().map(|o| o.location.as_ref()).collect::<Vec<_>>(), ["a.b", "a0"]);
        let level = objects.list_with_delimiter(Some(&Path::from("a"))).await.unwrap();
        assert_eq!(level.common_prefixes, [Path::from("a/b")]);
        assert_eq!(level.objects.iter().map(|o| o.location.as_ref()).collect::<Vec<_>>(), ["a/b.c", "a/b0"]);
    }
}

#[tokio::test]
async fn lists_longer_than_a_chunk_are_whole() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("many")).unwrap();
    for n in 0..2500 {
        fs::write(folder.path().join(format!("many/{n:05}")), "x").unwrap();
    }
    let listed = keys(&local(folder.path()), Some("many"), None).await;
    assert_eq!(listed.len(), 2500);
    assert!(listed.is_sorted());
}

#[tokio::test]
async fn copies_and_renames_respect_what_exists() {
    for opened in all() {
        let objects = opened.store.objects();
        let [a, b, c, d] = ["a", "folder/b", "folder/c", "new/d"].map(Path::from);
        objects.put(&a, "A".into()).await.unwrap();
        objects.put(&b, "B".into()).await.unwrap();

        assert!(is_taken(objects.copy_if_not_exists(&a, &b).await));
        assert!(is_taken(objects.rename_if_not_exists(&a, &b).await));
        assert_eq!((read(&*objects, "a").await, read(&*objects, "folder/b").await), ("A".into(), "B".into()));

        objects.copy_if_not_exists(&a, &c).await.unwrap();
        objects.copy(&a, &b).await.unwrap();
        objects.copy(&a, &b).await.unwrap();
        objects.rename(&a, &b).await.unwrap();
        assert!(is_not_found(objects.head(&a).await));
        objects.rename_if_not_exists(&c, &d).await.unwrap();
        assert_eq!((read(&*objects, "folder/b").await, read(&*objects, "new/d").await), ("A".into(), "A".into()));
        assert_eq!(keys(&*objects, None, None).await, ["folder/b", "new/d"]);

        // A copy is a copy: what is written to one is not seen in the other.
        objects.copy(&d, &c).await.unwrap();
        objects.put(&d, "D".into()).await.unwrap();
        assert_eq!(read(&*objects, "folder/c").await, "A");
    }
}

#[tokio::test]
async fn deleted_objects_are_gone() {
    for opened in all() {
        let objects = opened.store.objects();
        for n in 0..150 {
            objects.put(&Path::from(format!("f{}/{n}", n % 3)), "x".into()).await.unwrap();
        }
        let victims = stream::iter((0..149).map(|n| Ok(Path::from(format!("f{}/{n}", n % 3))))).boxed();
        let deleted: Vec<Path> = objects.delete_stream(victims).try_collect().await.unwrap();
        assert_eq!(deleted.len(), 149);
        assert_eq!(keys(&*objects, None, None).await, ["f2/149"]);
        // What is gone stays gone, whoever asks for it.
        for gone in ["f2/149", "f2/149", "never/was"] {
            objects.delete(&Path::from(gone)).await.unwrap();
        }
        assert_eq!(keys(&*objects, None, None).await, [""; 0]);
    }
}

async fn upload(objects: &dyn ObjectStore, key: &str) -> Box<dyn MultipartUpload> {
    objects.put_multipart(&Path::from(key)).await.unwrap()
}

#[tokio::test]
async fn a_multipart_upload_is_seen_whole_or_not_at_all() {
    for opened in all() {
        let objects = opened.store.objects();
        let mut parts = upload(&*objects, "big/object").await;
        let (one, two, three) =
            (parts.put_part("one ".into()), parts.put_part("two ".into()), parts.put_part("3".into()));
        three.await.unwrap();
        one.await.unwrap();
        two.await.unwrap();
        assert!(is_not_found(objects.head(&Path::from("big/object")).await));
        assert_eq!(keys(&*objects, None, None).await, [""; 0]);
        let put = parts.complete().await.unwrap();
        assert_eq!(read(&*objects, "big/object").await, "one two 3");
        assert_eq!(objects.head(&Path::from("big/object")).await.unwrap().e_tag, put.e_tag);

        let mut parts = upload(&*objects, "big/object").await;
        parts.put_part("other".into()).await.unwrap();
        parts.abort().await.unwrap();
        assert_eq!(read(&*objects, "big/object").await, "one two 3");
    }
}

#[tokio::test]
async fn a_multipart_upload_with_a_hole_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let objects = local(folder.path());
    let mut parts = upload(&objects, "x/object").await;
    drop(parts.put_part("never awaited".into()));
    parts.put_part("written".into()).await.unwrap();
    assert!(parts.complete().await.unwrap_err().to_string().contains("part of the upload is missing"));
    assert!(parts.put_part("late".into()).await.is_err());
    assert!(parts.abort().await.is_err());
    drop(upload(&objects, "x/dropped").await);
    assert_eq!(fs::read_dir(folder.path().join("x")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_sweep_removes_what_a_crash_left_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let store = store::open(folder.path().to_str().unwrap()).unwrap();
    let objects = store.objects();
    objects.put(&Path::from("x/y/object"), "kept".into()).await.unwrap();
    let mut living = upload(&*objects, "x/y/living").await;
    living.put_part("living".into()).await.unwrap();
    for left in ["tmp#123", "x/tmp#4", "x/y/part-0.parquet#1"] {
        fs::write(folder.path().join(left), "torn").unwrap();
    }
    assert_eq!(keys(&*objects, None, None).await, ["x/y/object"]);
    assert_eq!(store.sweep().await.unwrap(), 3);
    assert_eq!(store.sweep().await.unwrap(), 0);
    living.complete().await.unwrap();
    assert_eq!(keys(&*objects, None, None).await, ["x/y/living", "x/y/object"]);
    store.settle(["x", "x/y", "no/such/folder"].map(Path::from).into()).await.unwrap();
}

#[tokio::test]
async fn symbolic_links_lead_nowhere() {
    let (outside, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink(outside.path(), folder.path().join("out")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("secret"), folder.path().join("link")).unwrap();
    let objects = local(folder.path());
    for key in ["out/secret", "link"].map(Path::from) {
        assert!(objects.get(&key).await.unwrap_err().to_string().contains("symbolic link"), "{key}");
        assert!(objects.get_ranges(&key, &[0..1, 3..4]).await.is_err());
        assert!(objects.copy(&key, &Path::from("copied")).await.is_err());
    }
    assert!(objects.put(&Path::from("out/new"), "x".into()).await.is_err());
    assert!(objects.delete(&Path::from("out/secret")).await.is_err());
    assert!(objects.list(Some(&Path::from("out"))).try_collect::<Vec<_>>().await.is_err());
    assert_eq!(keys(&objects, None, None).await, [""; 0]);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn names_of_temporary_files_are_no_objects() {
    let folder = tempfile::tempdir().unwrap();
    let objects = local(folder.path());
    for key in ["tmp#1", "a/b#22", ""] {
        let key = Path::parse(key).unwrap();
        assert!(objects.put(&key, "x".into()).await.is_err(), "{key}");
        assert!(objects.get(&key).await.is_err(), "{key}");
    }
    objects.put(&Path::parse("a#b").unwrap(), "x".into()).await.unwrap();
    assert_eq!(keys(&objects, None, None).await, ["a#b"]);
}

#[tokio::test]
async fn a_folder_that_someone_removed_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let objects = local(folder.path());
    objects.put(&Path::from("a/b/c"), "1".into()).await.unwrap();
    fs::remove_dir_all(folder.path().join("a")).unwrap();
    objects.put(&Path::from("a/b/c"), "2".into()).await.unwrap();
    assert_eq!(read(&objects, "a/b/c").await, "2");
}

#[test]
fn a_url_chooses_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let wanted = folder.path().join("a b/ü");
    let path = wanted.to_str().unwrap();
    let by_path = store::open(path).unwrap();
    assert!(wanted.is_dir());
    assert_eq!(by_path.folder(), Some(&*fs::canonicalize(&wanted).unwrap()));
    let by_url = store::open(by_path.url().as_str()).unwrap();
    assert_eq!((by_url.folder(), by_url.url()), (by_path.folder(), by_path.url()));
    assert!(by_url.url().as_str().starts_with("file:///") && by_url.url().as_str().ends_with("a%20b/%C3%BC/"));
    let part = by_path.under("tables/pin").unwrap();
    assert_eq!(part.url().as_str(), format!("{}tables/pin/", by_path.url()));
    assert_eq!(Store::in_memory().under("tables/pin").unwrap().url().as_str(), "memory:///tables/pin/");
    for (text, reason) in [
        ("s3://bucket/x", "s3: is not supported"),
        ("", "names no store"),
        ("file://other-machine/x", "is not file:///folder"),
    ] {
        let error = format!("{:#}", store::open(text).expect_err(text));
        assert!(error.contains(reason), "{error}");
    }
    fs::write(folder.path().join("file"), "x").unwrap();
    assert!(store::open(folder.path().join("file").to_str().unwrap()).is_err());
}

/// What a store shares with `object_store`'s own local one: objects written by one are read
/// by the other, under the same names and tags.
#[tokio::test]
async fn objects_are_the_same_through_object_stores_own_local_store() {
    let folder = tempfile::tempdir().unwrap();
    let ours: Arc<dyn ObjectStore> = Arc::new(local(folder.path()));
    let theirs = object_store::local::LocalFileSystem::new_with_prefix(folder.path()).unwrap();
    for name in ["a b", "country=New%20York/ü+1", "x/%2F", "q?&"] {
        let key = Path::parse(name).unwrap();
        ours.put(&key, name.to_owned().into()).await.unwrap();
        assert_eq!(theirs.get(&key).await.unwrap().bytes().await.unwrap(), name);
        assert_eq!(theirs.head(&key).await.unwrap(), ours.head(&key).await.unwrap());
    }
    let mut listed: Vec<_> = theirs.list(None).try_collect().await.unwrap();
    listed.sort_by(|a, b| a.location.cmp(&b.location));
    assert_eq!(ours.list(None).try_collect::<Vec<_>>().await.unwrap(), listed);
}
