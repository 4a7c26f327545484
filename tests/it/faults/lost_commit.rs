//! A transaction is committed, and its producer is never told: it must find out, and not write the batch again.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use notification_service::adapters::kafka::{KafkaSource, SourceSettings};
use notification_service::ports::source::{EventSource as _, Settled};
use notification_service::ports::transactions::{TransactionError, Transactions as _};

use super::cluster::Cluster;
use super::fleet::Fleet;
use super::settings::Guarantee;
use crate::support::clients::{client, member, on_one_thread, output};
use crate::support::events::order_created;
use crate::support::kafka::{Kafka, NOTIFICATIONS};
use crate::support::unique;
use crate::support::wait::secs;

/// Kafka's number of the request that ends a transaction: `EndTxn`.
const END_TXN: [u8; 2] = [0, 26];

#[test]
#[ignore = "needs Java and Kafka's jars: scripts/test.sh"]
fn a_commit_whose_answer_is_lost_is_not_written_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(folder.path(), 1);
    let kafka = Kafka { brokers: cluster.addresses(), prefix: format!("doubt-{}.", unique()) };
    Fleet::new(folder.path(), &kafka.brokers, &kafka, Guarantee::ExactlyOnce).create_topics(1);
    kafka.produce_one(order_created("one", "order-1", "customer", "1").input());
    let broker = &cluster.brokers()[0];
    let network = Network::between(broker.advertised, broker.proxied);
    let client = client(&format!("127.0.0.1:{}", broker.advertised));
    on_one_thread(async {
        let source = KafkaSource::start(SourceSettings { transactional: true, ..member(&kafka) }).expect("starts");
        let taken: Vec<Settled> =
            source.next_batch(10).await.expect("a record").into_iter().map(Settled::from).collect();
        let transactions = source.transactions(&client, &kafka.named("a-producer"));
        transactions.init().await.expect("begins");
        let output = output(&kafka);
        network.hides_the_end.store(true, Ordering::SeqCst);
        let untold = transactions.commit(&[&output], &taken).await;
        assert!(matches!(untold, Err(TransactionError::Aborted(_))), "nobody said that it is committed: {untold:?}");
        assert!(network.hidden.load(Ordering::SeqCst) > 0, "the answer was lost");
        network.hides_the_end.store(false, Ordering::SeqCst);
        transactions.commit(&[&output], &taken).await.expect("it turns out to be");
        source.settle(&taken);
        source.close(secs(10)).await;
    });
    assert_eq!(kafka.read(NOTIFICATIONS).len(), 1, "written once");
    assert_eq!(kafka.read_uncommitted(NOTIFICATIONS).len(), 1, "and nothing of it was aborted");
}

/// A way to the broker that can lose the answers to what ends transactions: the connection ends when they come.
struct Network {
    hides_the_end: Arc<AtomicBool>,
    hidden: Arc<AtomicU32>,
}

impl Network {
    #[track_caller]
    fn between(port: u16, broker: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
        let network = Self { hides_the_end: Arc::default(), hidden: Arc::default() };
        let (hides, hidden) = (Arc::clone(&network.hides_the_end), Arc::clone(&network.hidden));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", broker)) else { continue };
                connect(client, server, &hides, &hidden);
            }
        });
        network
    }
}

/// One thread for each direction; they end with the connection.
fn connect(mut client: TcpStream, mut server: TcpStream, hides: &Arc<AtomicBool>, hidden: &Arc<AtomicU32>) {
    let (mut answers, mut back) = (server.try_clone().expect("a handle"), client.try_clone().expect("a handle"));
    let (hides, hidden) = (Arc::clone(hides), Arc::clone(hidden));
    let lost = Arc::new(AtomicBool::new(false));
    let is_lost = Arc::clone(&lost);
    thread::spawn(move || {
        while let Ok(request) = frame(&mut client) {
            if request[4..6] == END_TXN && hides.load(Ordering::SeqCst) {
                lost.store(true, Ordering::SeqCst);
            }
            if server.write_all(&request).is_err() {
                break;
            }
        }
        let _ = server.shutdown(Shutdown::Both);
    });
    thread::spawn(move || {
        while let Ok(answer) = frame(&mut answers) {
            if is_lost.load(Ordering::SeqCst) {
                // The broker has done what it was asked to.
                hidden.fetch_add(1, Ordering::SeqCst);
                break;
            }
            if back.write_all(&answer).is_err() {
                break;
            }
        }
        let _ = back.shutdown(Shutdown::Both);
    });
}

/// One request or answer, with its length in front.
fn frame(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    stream.read_exact(&mut frame)?;
    let length = u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize;
    frame.resize(4 + length.max(2), 0);
    stream.read_exact(&mut frame[4..])?;
    Ok(frame)
}
