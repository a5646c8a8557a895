mod support;
use relay_client::*;
use std::io::Read;
use std::time::Instant;
use support::*;
#[test]
fn speed() {
    let relay = Relay::new();
    let config = PublisherConfig { window_bytes: 8 << 20, ..relay.publisher_config() };
    let (mut p, session, topic) = relay.publisher(config, Terms{credit: 1<<22, ..Terms::default()});
    let n: u64 = 3_000_000;
    let raw = session.into_socket();
    raw.set_nonblocking(false).unwrap();
    let t = std::thread::spawn(move || {
        use std::io::Write;
        let mut raw = raw; let mut buf = vec![0u8; 1<<20]; let mut got = 0u64; let mut acked=0;
        while acked < n {
            got += raw.read(&mut buf).unwrap() as u64;
            let k = got/328;
            if k > acked { acked = k; 
              let a = wire::message::Message::Ack(wire::message::Ack{publisher_seq: PublisherSeq(k), seq: Seq(k), epoch: Epoch(1)}).to_vec().unwrap();
              raw.write_all(&a).unwrap(); }
        }
    });
    let payload=[7u8;256];
    let begun = Instant::now();
    let cpu0 = cpu();
    let mut sent=0; let mut polls=0u64;
    while sent < n {
        let mut k=0;
        while k<64 && sent<n { if p.try_send(&OutMessage::new(topic,&payload)).is_err(){break} sent+=1; k+=1; }
        p.poll().unwrap(); polls+=1;
    }
    while !p.wait_released(std::time::Duration::from_secs(1)).unwrap() {}
    let e=begun.elapsed();
    println!("publish {n} in {e:?} = {:.0}/s, cpu of this thread {:.2}s -> {:.0} ns/msg, polls {polls}", n as f64/e.as_secs_f64(), cpu()-cpu0, (cpu()-cpu0)*1e9/n as f64);
    t.join().unwrap();

    let (mut s, session, _) = relay.subscriber(relay.subscriber_config(">", Start::Earliest),1,1);
    let raw = session.into_socket(); raw.set_nonblocking(false).unwrap();
    let mut all = defined(1,1,"a.b");
    let n=1_000_000u64;
    for seq in 1..=n { all.extend_from_slice(&released(wire::code::RecordKind::Data,1,seq,&payload)); }
    let t = std::thread::spawn(move || { use std::io::Write; let mut raw=raw; raw.write_all(&all).unwrap(); raw });
    let begun = Instant::now(); let cpu0=cpu(); let mut got=0;
    while got<n { if s.next_within(std::time::Duration::from_secs(5)).unwrap().is_some(){got+=1} }
    let e=begun.elapsed();
    println!("receive {n} in {e:?} = {:.0}/s, cpu {:.2}s -> {:.0} ns/msg", n as f64/e.as_secs_f64(), cpu()-cpu0, (cpu()-cpu0)*1e9/n as f64);
    let raw = t.join().unwrap();
    let b=Instant::now(); for _ in 0..200_000 { assert!(s.poll().unwrap().is_none()); }
    println!("idle poll {:?}", b.elapsed()/200_000);
    drop(raw);
}
fn cpu()->f64{ let mut t=libc_ts(); t.0 as f64 + t.1 as f64*1e-9 }
fn libc_ts()->(i64,i64){ let mut ts=libc::timespec{tv_sec:0,tv_nsec:0}; unsafe{libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID,&mut ts)}; (ts.tv_sec,ts.tv_nsec) }
