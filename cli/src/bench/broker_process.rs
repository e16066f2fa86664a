//! Which process of this machine is the broker: the one that listens at its address.
//!
//! The kernel's table of sockets gives the socket that listens, `/proc/PID/fd` who has it. Only processes of
//! the same user can be looked into. What cannot be found out is not measured, and the report says why.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::Path,
};

use super::meter;

/// What the broker's process is called.
const PROGRAM: &str = "riverrun";
/// State of a socket that listens, in the kernel's table.
const LISTEN: &str = "0A";

/// The process of the broker at `server`, or why it is not known.
pub(super) async fn find(server: &str) -> Result<u32, String> {
    let authority = authority(server);
    let found = tokio::net::lookup_host(&authority).await;
    let found = found.map_err(|error| format!("`{authority}` cannot be looked up: {error}"))?;
    let here: Vec<SocketAddr> = found.filter(|address| is_here(address.ip())).collect();
    if here.is_empty() {
        return Err("it runs on another machine".to_owned());
    }
    let sockets = listening(&here);
    if sockets.is_empty() {
        return Err("no process of this machine listens there by itself".to_owned());
    }
    let pid = owner(&sockets).ok_or("its process belongs to another user")?;
    let name = read(&format!("/proc/{pid}/comm")).unwrap_or_default();
    match name.trim() {
        PROGRAM => Ok(pid),
        name => Err(format!("`{name}`, process {pid}, listens there")),
    }
}

/// The process that the user names, if it can be measured.
pub(super) fn named(pid: u32) -> Result<u32, String> {
    let seen = meter::memory(pid).and_then(|_| meter::processor_seconds(pid));
    seen.map(|_| pid).map_err(|error| format!("process {pid} cannot be measured: {error}"))
}

/// `host:port` of what was given with `--server`.
fn authority(server: &str) -> String {
    let rest = server.strip_prefix("riverrun://").unwrap_or(server).trim_end_matches('/');
    let end_of_host = rest.rfind(']').map_or(0, |at| at + 1);
    match rest[end_of_host..].contains(':') {
        true => rest.to_owned(),
        false => format!("{rest}:7070"),
    }
}

/// Whether an address is one of this machine's.
fn is_here(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

/// Numbers of the sockets that listen at one of the addresses, or at all of this machine's.
fn listening(addresses: &[SocketAddr]) -> Vec<u64> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| read(path).unwrap_or_default());
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    lines.filter_map(|line| listener(line, addresses)).collect()
}

/// The number of the socket that a line of the table is about, if it listens at one of the addresses.
fn listener(line: &str, addresses: &[SocketAddr]) -> Option<u64> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    let local = socket_address(local)?;
    let is_it = |address: &SocketAddr| {
        address.port() == local.port()
            && (local.ip().is_unspecified()
                || local.ip().to_canonical() == address.ip().to_canonical())
    };
    (*state == LISTEN && addresses.iter().any(is_it)).then(|| inode.parse().ok())?
}

/// Reads `0100007F:1B9E`: words of an address as this processor reads them, then the port.
fn socket_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let mut bytes = Vec::new();
    for word in ip.as_bytes().chunks(8) {
        let word = std::str::from_utf8(word).ok().filter(|word| word.len() == 8)?;
        let word = u32::from_str_radix(word, 16).ok()?;
        bytes.extend(word.to_le_bytes());
    }
    let ip = match <[u8; 4]>::try_from(&bytes[..]) {
        Ok(bytes) => IpAddr::from(Ipv4Addr::from(bytes)),
        Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into(),
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// The process that has one of the sockets open.
fn owner(sockets: &[u64]) -> Option<u32> {
    let links: Vec<String> = sockets.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let has_it = |pid: &u32| {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).ok();
        files.into_iter().flatten().flatten().any(|file| is_one_of(&file.path(), &links))
    };
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let mut pids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    pids.find(has_it)
}

fn is_one_of(file: &Path, links: &[String]) -> bool {
    let target = std::fs::read_link(file).unwrap_or_default();
    links.iter().any(|link| target.as_os_str() == link.as_str())
}

#[expect(clippy::disallowed_methods, reason = "reads what the kernel tells of processes")]
fn read(path: &str) -> std::io::Result<String> {
    std::fs::read_to_string(path)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn addresses_are_read_as_the_client_reads_them() {
        let cases = [
            ("riverrun://a:1/", "a:1"),
            ("127.0.0.1:7071", "127.0.0.1:7071"),
            ("localhost", "localhost:7070"),
            ("[::1]", "[::1]:7070"),
            ("[::1]:9", "[::1]:9"),
        ];
        for (server, expected) in cases {
            assert_eq!(authority(server), expected);
        }
    }

    #[test]
    fn the_table_of_sockets_is_read() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(socket_address("0100007F:1B9E"), Some(address("127.0.0.1:7070")));
        let v6 = socket_address("00000000000000000000000001000000:0050");
        assert_eq!(v6, Some(address("[::1]:80")));
        assert_eq!(socket_address("01:0050"), None);
        let line = "0: 00000000:1B9E 00000000:0000 0A 0:0 0:0 0 1000 0 4711 1 0 100 0";
        assert_eq!(listener(line, &[address("127.0.0.1:7070")]), Some(4711));
        assert_eq!(listener(line, &[address("127.0.0.1:7071")]), None);
        assert_eq!(listener(&line.replace(" 0A ", " 01 "), &[address("127.0.0.1:7070")]), None);
    }

    #[tokio::test]
    async fn this_process_is_found_where_it_listens_and_is_no_broker() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(owner(&listening(&[address])), Some(std::process::id()));
        let why = find(&address.to_string()).await.unwrap_err();
        assert!(why.contains(&std::process::id().to_string()), "{why}");
        drop(listener);
        let why = find(&address.to_string()).await.unwrap_err();
        assert!(why.contains("listens there by itself"), "{why}");
    }
}
