//! The resolver against a name server of the tests' own, on loopback.

use super::{servers::Listed, *};
use cove_wire::dns::{A, AAAA, PTR};
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};

fn question(name: &str, kind: u16) -> Vec<u8> {
    let mut message = vec![9, 8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label.bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    message
}

fn resolver(hosts: &str, servers: Vec<SocketAddr>) -> (Resolver, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hosts");
    std::fs::write(&file, hosts).unwrap();
    let listed = Listed {
        servers,
        search: Vec::new(),
    };
    (Resolver::new(Hosts::new(file), Servers::fixed(listed)), directory)
}

/// A server that answers every question over UDP with one address, or cuts its answers off and tells it over TCP.
async fn name_server(cut: bool) -> SocketAddr {
    let streams = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = streams.local_addr().unwrap();
    let datagrams = UdpSocket::bind(address).await.unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        loop {
            let (length, from) = datagrams.recv_from(&mut buffer).await.unwrap();
            let query = Query::parse(&buffer[..length]).unwrap();
            let mut stranger = query.answer(&["192.0.2.66".parse().unwrap()], 60);
            dns::set_id(&mut stranger, query.id().wrapping_add(1));
            datagrams.send_to(&stranger, from).await.unwrap();
            let mut answer = query.answer(&["192.0.2.5".parse().unwrap()], 60);
            if cut {
                answer[2] |= 2;
            }
            datagrams.send_to(&answer, from).await.unwrap();
        }
    });
    tokio::spawn(async move {
        let (mut stream, _) = streams.accept().await.unwrap();
        let mut message = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut message).await.unwrap();
        let query = Query::parse(&message).unwrap();
        let answer = query.answer(&["192.0.2.6".parse().unwrap()], 60);
        stream
            .write_u16(u16::try_from(answer.len()).unwrap())
            .await
            .unwrap();
        stream.write_all(&answer).await.unwrap();
    });
    address
}

#[tokio::test]
async fn the_hosts_file_comes_first_and_its_loopback_is_the_gateway() {
    let (resolver, _directory) = resolver("127.0.0.1 app.test\n192.0.2.7 db.test\n", Vec::new());
    let answer = resolver.answer(&question("app.test", A)).await.unwrap();
    assert!(answer.ends_with(&network::GATEWAY_V4.octets()));
    let answer = resolver.answer(&question("DB.test", A)).await.unwrap();
    assert!(answer.ends_with(&[192, 0, 2, 7]));
    let answer = resolver.answer(&question("db.test", AAAA)).await.unwrap();
    assert_eq!(
        (answer[3] & 15, answer[7]),
        (0, 0),
        "the name has no such address"
    );
}

#[tokio::test]
async fn the_hosts_file_says_what_an_address_is_called_but_for_its_own_loopback() {
    let text = "127.0.1.1 laptop\n192.0.2.7 db.test db\n2001:db8::7 db6.test\n";
    let (resolver, _directory) = resolver(text, Vec::new());
    let nibbles = format!("7{}.8.b.d.0.1.0.0.2.ip6.arpa", ".0".repeat(23));
    for (address, name) in [
        ("7.2.0.192.in-addr.arpa", &b"\x02db\x04test\0"[..]),
        (&nibbles, b"\x03db6\x04test\0"),
    ] {
        let answer = resolver.answer(&question(address, PTR)).await.unwrap();
        assert!(answer.ends_with(name), "{address}: {}", answer.escape_ascii());
    }
    // These the name servers are asked for, of which there is none here.
    for address in ["1.1.0.127.in-addr.arpa", "8.2.0.192.in-addr.arpa"] {
        let answer = resolver.answer(&question(address, PTR)).await.unwrap();
        assert_eq!(answer[3] & 15, Code::ServerFailure as u8, "{address}");
    }
}

#[tokio::test]
async fn what_the_file_does_not_have_a_name_server_is_asked_and_strangers_are_not_believed() {
    let (resolver, _directory) = resolver("", vec![name_server(false).await]);
    let answer = resolver.answer(&question("www.example.test", A)).await.unwrap();
    assert!(answer.ends_with(&[192, 0, 2, 5]));
    assert_eq!(answer[..2], [9, 8]);
}

#[tokio::test]
async fn an_answer_that_was_cut_off_is_had_over_tcp() {
    let (resolver, _directory) = resolver("", vec![name_server(true).await]);
    let answer = resolver.answer(&question("www.example.test", A)).await.unwrap();
    assert!(answer.ends_with(&[192, 0, 2, 6]));
}

/// Takes questions and says nothing.
async fn dead_server() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[tokio::test]
async fn a_dead_name_server_is_passed_over() {
    let (_dead, address) = dead_server().await;
    let (resolver, _directory) = resolver("", vec![address, name_server(false).await]);
    let answer = resolver.answer(&question("www.example.test", A)).await.unwrap();
    assert!(answer.ends_with(&[192, 0, 2, 5]));
}

#[tokio::test(start_paused = true)]
async fn where_all_name_servers_are_dead_there_is_an_answer_in_time() {
    let (_dead, address) = dead_server().await;
    let (resolver, _directory) = resolver("", vec![address; 3]);
    let began = tokio::time::Instant::now();
    let answer = resolver.answer(&question("www.example.test", A)).await.unwrap();
    assert_eq!(answer[3] & 15, Code::ServerFailure as u8);
    assert!(began.elapsed() < PATIENCE + PAUSE, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_slow_name_server_is_still_listened_to_while_others_are_asked() {
    let slow = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (_dead, dead_address) = dead_server().await;
    let (resolver, _directory) = resolver("", vec![slow.local_addr().unwrap(), dead_address]);
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        let (length, from) = slow.recv_from(&mut buffer).await.unwrap();
        // Its one question was asked first, and the other server meanwhile.
        sleep(PATIENCE / 2).await;
        let query = Query::parse(&buffer[..length]).unwrap();
        let answer = query.answer(&["192.0.2.5".parse().unwrap()], 60);
        slow.send_to(&answer, from).await.unwrap();
    });
    let answer = resolver.answer(&question("www.example.test", A)).await.unwrap();
    assert!(answer.ends_with(&[192, 0, 2, 5]));
}

#[tokio::test]
async fn a_computer_without_a_name_server_says_so_at_once() {
    // Nobody listens any more at the second, as at the loopback's port 53 of a computer whose list names none.
    let (socket, nobody) = dead_server().await;
    drop(socket);
    for servers in [Vec::new(), vec![nobody]] {
        let (resolver, _directory) = resolver("", servers);
        let asked = question("www.example.test", 16);
        let answer = timeout(PATIENCE / 2, resolver.answer(&asked)).await;
        let answer = answer.unwrap().unwrap();
        assert_eq!(answer[3] & 15, Code::ServerFailure as u8);
    }
}

#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn a_guest_that_takes_no_answers_is_left() {
    let (resolver, _directory) = resolver("192.0.2.7 db.test\n", Vec::new());
    let (mut guest, ours) = tokio::net::UnixStream::pair().unwrap();
    let conversing = tokio::spawn(converse(ours.into(), Arc::new(resolver)));
    let question = question("db.test", A);
    let mut message = u16::try_from(question.len()).unwrap().to_be_bytes().to_vec();
    message.extend(question);
    let asking = async {
        // Ends with the connection.
        while guest.write_all(&message).await.is_ok() {}
    };
    timeout(10 * PATIENCE, asking).await.unwrap();
    conversing.await.unwrap();
}
