//! Fetching from servers on this machine that do all that a server can do wrong.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

use super::*;

const HELLO: SourceFile = SourceFile {
    name: "hello",
    bytes: 5,
    sha256: "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
};
const WORLD: SourceFile = SourceFile {
    name: "world",
    bytes: 5,
    sha256: "486ea46224d1bb4fb680f34f7c9ad96a8f24ec88be73ea8e5a6c65260e9cb8a7",
};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// A server that answers each request for `/NAME.gz` by `answer(NAME)`, as raw bytes of HTTP, then hangs up.
fn server(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap_or(0);
            let text = String::from_utf8_lossy(&request[..length]).into_owned();
            let name = text.split_whitespace().nth(1).unwrap_or("").trim_start_matches('/');
            let _ = stream.write_all(&answer(name.trim_end_matches(".gz")));
        }
    });
    format!("http://{address}/")
}

fn ok(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn good() -> String {
    server(|name| ok(&gzip(name.as_bytes())))
}

fn fetcher(mirrors: &[String]) -> Fetcher {
    Fetcher {
        mirrors: mirrors.to_vec(),
        system_folder: None,
        npm_package: None,
        answer_timeout: Duration::from_millis(500),
        silence_timeout: Duration::from_millis(500),
        npm_timeout: Duration::from_secs(1),
    }
}

/// Fetches hello and world; answers the names that are missing, the reasons, and the folder.
fn run(fetcher: &Fetcher, folder: &Path) -> (Vec<&'static str>, Vec<String>) {
    let (missing, attempts) = fetcher.fetch_files(&[HELLO, WORLD], folder, &mut |_| ()).unwrap();
    let left = fs::read_dir(folder).unwrap().flatten();
    let temporary = left.filter(|e| e.file_name().to_string_lossy().starts_with(".kiln-")).count();
    assert_eq!(temporary, 0, "no temporary file is left");
    let reasons = attempts.into_iter().map(|(place, reason)| format!("{place}: {reason}")).collect();
    (missing.iter().map(|file| file.name).collect(), reasons)
}

#[test]
fn a_good_mirror_is_enough() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(run(&fetcher(&[good()]), dir.path()), (vec![], vec![]));
    assert_eq!(fs::read(dir.path().join("hello")).unwrap(), b"hello");
    assert_eq!(fs::read(dir.path().join("world")).unwrap(), b"world");
}

/// Each bad mirror is told from the others, costs one attempt, and the next one is asked.
#[test]
fn a_bad_mirror_is_left_for_the_next() {
    let dead = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/", listener.local_addr().unwrap())
    };
    let bad: [(&str, String); 7] = [
        ("404", server(|_| b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec())),
        ("after 0 bytes", server(|_| ok(b"<html>a captive portal</html>"))),
        ("expected sha-256", server(|_| ok(&gzip(b"HELLO")))),
        ("expected 5 bytes, found 4", server(|_| ok(&gzip(b"hell")))),
        ("expected 5 bytes, found more", server(|_| ok(&gzip(&[b'h'; 1 << 20])))),
        ("hello", server(|name| ok(&gzip(name.as_bytes()))[..70].to_vec())),
        ("refused", dead),
    ];
    for (reason, mirror) in bad {
        let dir = tempfile::tempdir().unwrap();
        let (missing, attempts) = run(&fetcher(&[mirror, good()]), dir.path());
        assert_eq!((missing, attempts.len()), (vec![], 1), "{attempts:?}");
        assert!(attempts[0].contains(reason), "{reason}: {attempts:?}");
    }
}

#[test]
fn a_mirror_that_stalls_is_left() {
    let (_keep, stalled) = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap(); // accepts, and never says a word
        let address = format!("http://{}/", listener.local_addr().unwrap());
        (listener, address)
    };
    let slow = server(|_| {
        thread::sleep(Duration::from_secs(3));
        Vec::new()
    });
    let dir = tempfile::tempdir().unwrap();
    let (missing, attempts) = run(&fetcher(&[stalled, slow, good()]), dir.path());
    assert_eq!((missing, attempts.len()), (vec![], 2), "{attempts:?}");
    assert!(attempts.iter().all(|attempt| attempt.contains("timeout")), "{attempts:?}");
}

/// In all it takes longer than a mirror may say nothing.
#[test]
fn a_slow_line_takes_its_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let (body, answer) = (gzip(b"hello"), ok(&gzip(b"hello")));
            let (head, body) = answer.split_at(answer.len() - body.len());
            let _ = stream.write_all(head);
            for part in body.chunks(body.len().div_ceil(8)) {
                thread::sleep(Duration::from_millis(100));
                let _ = stream.write_all(part);
            }
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let fetcher =
        Fetcher { answer_timeout: Duration::from_secs(5), ..fetcher(&[format!("http://{address}/")]) };
    let (missing, attempts) = fetcher.fetch_files(&[HELLO], dir.path(), &mut |_| ()).unwrap();
    assert_eq!((missing.len(), attempts), (0, vec![]));
}

/// What is no file is not waited for, and is not taken for the right one.
#[cfg(unix)]
#[test]
fn a_pipe_or_a_folder_in_the_place_of_a_file_is_not_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("hello.gz");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert!(!is_installed(&HELLO, dir.path()));
    fs::create_dir(dir.path().join("world")).unwrap();
    fs::write(dir.path().join("world.gz"), gzip(b"world")).unwrap();
    assert!(!is_installed(&WORLD, dir.path()), "it is the folder that would be read");
}

#[test]
fn files_that_are_right_are_kept_and_wrong_ones_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let asked_for_world_only = server(|name| match name {
        "world" => ok(&gzip(b"world")),
        _ => b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".to_vec(),
    });
    fs::write(dir.path().join("hello.gz"), gzip(b"hello")).unwrap();
    fs::write(dir.path().join("world"), b"wor").unwrap();
    // A failed fetch leaves what is there, be it wrong.
    let (missing, _) = run(&fetcher(&[]), dir.path());
    assert_eq!(
        (missing, fs::read(dir.path().join("world")).unwrap().as_slice()),
        (vec!["world"], &b"wor"[..])
    );
    assert_eq!(run(&fetcher(&[asked_for_world_only]), dir.path()), (vec![], vec![]));
    assert_eq!(fs::read(dir.path().join("world")).unwrap(), b"world");
}

#[test]
fn a_folder_of_the_system_is_taken_last() {
    let (system, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(system.path().join("hello.gz"), gzip(b"hello")).unwrap();
    let mut fetcher = fetcher(&[]);
    fetcher.system_folder = Some((system.path().into(), "the package".to_owned()));
    let (missing, attempts) = run(&fetcher, dir.path());
    assert_eq!(missing, ["world"]);
    assert!(attempts[0].starts_with("the package: world.gz: "), "{attempts:?}");
}

#[test]
fn all_that_failed_is_listed_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let mirror = server(|_| b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec());
    let error =
        fetcher(std::slice::from_ref(&mirror)).fetch(Source::Mnist, dir.path(), &mut |_| ()).unwrap_err();
    let text = error.to_string();
    for part in [mirror.as_str(), "404", "t10k-labels-idx1-ubyte  (10008 bytes, sha-256 ff7b", "by hand"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let taken = dir.path().join("taken");
    fs::write(&taken, b"a file").unwrap();
    let error = fetcher(&[good()]).fetch(Source::Mnist, &taken, &mut |_| ()).unwrap_err();
    assert!(matches!(&error, FetchError::Write { path, .. } if path.starts_with(&taken)), "{error}");
}

#[test]
fn what_a_killed_fetch_left_is_removed_when_old() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join(".kiln-old.tmp"), dir.path().join(".kiln-new.tmp"));
    for path in [&old, &new] {
        fs::write(path, b"half a fi").unwrap();
    }
    let two_hours_ago = std::time::SystemTime::now() - Duration::from_secs(7200);
    fs::File::options().write(true).open(&old).unwrap().set_modified(two_hours_ago).unwrap();
    fetcher(&[good()]).fetch_files(&[HELLO], dir.path(), &mut |_| ()).unwrap();
    assert_eq!((old.exists(), new.exists()), (false, true), "another fetch may be writing the new one");
}

#[test]
fn progress_ends_at_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = None;
    let mut note = |now: Progress<'_>| last = Some((now.file.to_owned(), now.done, now.total));
    fetcher(&[good()]).fetch_files(&[HELLO], dir.path(), &mut note).unwrap();
    assert_eq!(last, Some(("hello".to_owned(), 5, 5)));
}
