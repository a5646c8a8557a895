//! What is left of a process that was killed: nothing that its peers would wait for.

mod appliance;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use appliance::{Appliance, LIMIT, Shape, eventually, relayd};

/// The process that hangs up for the appliance's.
fn second_process(appliance: &Appliance) -> i32 {
    let of_ours = format!("PPid:\t{}", appliance.pid());
    let mut found = None;
    eventually("there is one", || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        found = processes.into_iter().find_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let status = std::fs::read_to_string(entry.path().join("status")).ok()?;
            let is_it = status.starts_with("Name:\trelayd-hang-up\n")
                && status.lines().any(|line| line == of_ours);
            is_it.then_some(pid)
        });
        found.is_some()
    });
    found.unwrap()
}

/// Whether it runs; one that nobody has waited for does not.
fn is_there(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    status.is_ok_and(|status| !status.contains("State:\tZ"))
}

/// A copy of the socket at the appliance's end of `connection`, once it was accepted.
fn accepted(appliance: &Appliance, connection: &TcpStream) -> OwnedFd {
    // SAFETY: no pointers are passed; what is not negative is a new descriptor of ours.
    let process = unsafe { libc::syscall(libc::SYS_pidfd_open, appliance.pid(), 0) };
    assert!(process >= 0);
    // SAFETY: as above.
    let process = unsafe { OwnedFd::from_raw_fd(process as i32) };
    let ours = connection.local_addr().unwrap();
    let mut found = None;
    eventually("the connection is accepted", || {
        found = (0..1024).find_map(|number| {
            // SAFETY: no pointers are passed; what is not negative is a new descriptor of ours.
            let copy = unsafe {
                let process = process.as_raw_fd();
                let copy = libc::syscall(libc::SYS_pidfd_getfd, process, number, 0);
                (copy >= 0).then(|| OwnedFd::from_raw_fd(copy as i32))
            }?;
            let peer = socket2::SockRef::from(&copy).peer_addr().ok()?;
            (peer.as_socket() == Some(ours)).then_some(copy)
        });
        found.is_some()
    });
    found.unwrap()
}

/// Goal: a killed process' connections end by its own doing, before the kernel has taken down what it had. Method: somebody else
/// has a copy of the socket, so that the kernel would never end it.
#[test]
fn a_killed_process_hangs_up() {
    let mut appliance = Appliance::started(Shape::default());
    let mut connection = TcpStream::connect(appliance.address()).unwrap();
    let copy = accepted(&appliance, &connection);
    let second = second_process(&appliance);
    appliance.kill();
    connection.set_read_timeout(Some(LIMIT)).unwrap();
    // The challenge, and then the end.
    connection.read_to_end(&mut Vec::new()).unwrap();
    eventually("the second process ends", || !is_there(second));
    drop(copy);
    appliance.start();
    assert!(appliance.stop().success(), "{}", appliance.log());
}

/// Goal: a socket that relayd was started with may be others' too, and stays as it is.
#[test]
fn what_was_inherited_is_left_alone() {
    let mut appliance = Appliance::formatted(Shape::default());
    let (inherited, mut other_end) = UnixStream::pair().unwrap();
    let mut others = inherited.try_clone().unwrap();
    let input = Stdio::from(OwnedFd::from(inherited));
    appliance.start_as(relayd().stdin(input)).unwrap();
    let second = second_process(&appliance);
    appliance.kill();
    eventually("the second process ends", || !is_there(second));
    others.write_all(b"still open").unwrap();
    let mut read = [0; 10];
    other_end.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"still open");
}

/// Goal: after a clean stop everything is given back when the process has ended, the lock of its journal too.
#[test]
fn a_clean_stop_leaves_no_second_process() {
    let mut appliance = Appliance::started(Shape::default());
    let second = second_process(&appliance);
    assert!(appliance.stop().success(), "{}", appliance.log());
    assert!(!is_there(second), "it ended first");
}

/// Goal: the second process is a help and no need. Method: it is killed, and the appliance goes on.
#[test]
fn without_the_second_process_all_goes_on() {
    let mut appliance = Appliance::started(Shape::default());
    let second = second_process(&appliance);
    // SAFETY: a process of the appliance's, which did not wait for it, so the number is its own.
    assert_eq!(unsafe { libc::kill(second, libc::SIGKILL) }, 0);
    let mut publisher = appliance.publisher(1);
    let topic = publisher.topic("orders.a").unwrap();
    appliance::send(&mut publisher, topic, b"payload");
    assert!(publisher.wait_released(LIMIT).unwrap());
    publisher.close().unwrap();
    assert!(appliance.stop().success(), "{}", appliance.log());
}
