//! The test binary run again as a child process: for what concerns a whole process (its signals,
//! its descriptors).

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;

use super::PATIENCE;

/// Set in the child, to the part it plays.
const PART: &str = "TIDEGATE_TEST_CHILD";

/// What this process is to do as a child, if it is one. The test that starts a child calls this
/// first and does the child's part instead of its own.
pub fn part() -> Option<String> {
    std::env::var(PART).ok()
}

/// The path of a test function, as the test harness names it: without the crate's name.
fn path<T: Fn() + Copy>(_: T) -> &'static str {
    std::any::type_name::<T>().split_once("::").unwrap().1
}

/// Runs the test once more in a process of its own, and returns whether this *is* that process:
/// `if !in_a_process_of_its_own(this_test) { return }`.
#[track_caller]
pub fn in_a_process_of_its_own<T: Fn() + Copy>(test: T) -> bool {
    if part().is_some() {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([path(test), "--exact", "--nocapture", "--test-threads=1"])
        .env(PART, "the test itself")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}");
    assert!(said.contains("1 passed"), "no test of the name {}: {said}", path(test));
    false
}

/// The words a child says to its parent are marked, because the test harness says things too.
pub fn say(words: &str) {
    println!("\nchild says: {words}");
    std::io::stdout().flush().unwrap();
}

/// In the child: the next line of the parent's, or `None` if the parent is gone.
pub fn hear() -> Option<String> {
    let mut line = String::new();
    let n = std::io::stdin().read_line(&mut line).unwrap();
    (n > 0).then(|| line.trim_end().to_owned())
}

/// A child process; killed and waited for when dropped.
pub struct Helper {
    child: Child,
    stdin: ChildStdin,
    words: mpsc::Receiver<String>,
    /// Words that were noticed and not asked for yet.
    noticed: Option<String>,
}

impl Helper {
    /// Runs the test again in a child, in the part `part`.
    pub fn start<T: Fn() + Copy>(test: T, part: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([path(test), "--exact", "--nocapture", "--test-threads=1"])
            .env(PART, part)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (tell, words) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if let Some(words) = line.strip_prefix("child says: ") {
                    let _ = tell.send(words.to_owned());
                }
            }
        });
        Helper { child, stdin, words, noticed: None }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn tell(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
        self.stdin.flush().unwrap();
    }

    /// The next words of the child. Panics when it has ended without them.
    #[track_caller]
    pub fn hear(&mut self) -> String {
        let words = self.noticed.take().ok_or(());
        words.or_else(|()| self.words.recv_timeout(PATIENCE)).expect("the child to say something")
    }

    /// Whether there is something to [`hear`](Self::hear).
    pub fn has_spoken(&mut self) -> bool {
        self.noticed = self.noticed.take().or_else(|| self.words.try_recv().ok());
        self.noticed.is_some()
    }

    /// Waits until the child sleeps: with all its threads, because the test may be on any of them
    /// (proc(5), `State`).
    #[cfg(target_os = "linux")]
    pub fn wait_until_asleep(&self) {
        let start = std::time::Instant::now();
        while self.states().iter().any(|state| *state != 'S') {
            assert!(start.elapsed() < PATIENCE, "the child's threads are {:?}", self.states());
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    #[cfg(target_os = "linux")]
    fn states(&self) -> Vec<char> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.id())).unwrap();
        let state = |thread: std::io::Result<std::fs::DirEntry>| {
            // A thread may end meanwhile.
            let status = std::fs::read_to_string(thread.ok()?.path().join("stat")).ok()?;
            // The name, in parentheses, may hold anything.
            status.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next())
        };
        threads.filter_map(state).collect()
    }

    /// Stops the child (`SIGSTOP`) and waits until all its threads stand still.
    #[cfg(unix)]
    pub fn stop(&self) {
        use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
        let child = Pid::from_child(&self.child);
        kill_process(child, Signal::STOP).unwrap();
        // Looks only: the end of a child is for `drop`.
        let options = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let status = waitid(WaitId::Pid(child), options).unwrap().unwrap();
        assert!(status.stopped(), "the child has ended: {status:?}");
    }

    /// Continues the stopped child (`SIGCONT`).
    #[cfg(unix)]
    pub fn go_on(&self) {
        use rustix::process::{Pid, Signal, kill_process};
        kill_process(Pid::from_child(&self.child), Signal::CONT).unwrap();
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
