// Archiving through an object store that damages what passes, and two hosts that archive under one name: nothing wrong
// is ever served, nothing acknowledged is missing, and one host wins.
import Glibc
import KedgeArchive
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeTestSupport
import Testing

@Suite struct ObjectStoreFaultTests {
    /// A store on paper, and real ones with conditional put where there are some.
    enum Upstream: CustomTestStringConvertible {
        case paper
        case real(S3TestServer)

        var testDescription: String {
            switch self {
            case .paper: "paper"
            case .real(let server): server.name
            }
        }

        static var all: [Upstream] {
            let real = S3TestServer.all.filter(\.hasConditionalPut)
            return [.paper] + real.prefix(PostgresInstallation.soakIsEnabled ? real.count : 1).map { .real($0) }
        }
    }

    /// A repository in such a store.
    private struct Bench {
        let paper: PaperObjectStore?
        private let settings: S3ClientSettings

        init(_ upstream: Upstream) throws {
            let prefix = "archive-\(RandomID(from: SystemRandomSource()).hex)"
            switch upstream {
            case .paper:
                let paper = try PaperObjectStore()
                self.paper = paper
                settings = try paper.settings(prefix: prefix)
            case .real(let server):
                paper = nil
                var access = S3TestServer.Access()
                access.prefix = prefix
                settings = try server.settings(access)
            }
        }

        var store: RetryingStore { store(settings) }

        private func store(_ settings: S3ClientSettings) -> RetryingStore {
            var policy = RetryPolicy()
            policy.firstDelayNanoseconds = 1_000_000
            policy.maximumAttempts = 6
            return RetryingStore(
                S3Store(settings, conditionalPut: true), policy: policy, time: SystemTimeSource(),
                random: SystemRandomSource(), interruption: Interruption())
        }

        func proxied(
            seed: UInt64, percent: Int, _ faults: [FaultProxy.Fault]
        ) throws -> (proxy: FaultProxy, store: RetryingStore) {
            let port = try #require(settings.location.description.split(separator: ":").last.flatMap { UInt16($0) })
            let proxy = try FaultProxy(to: port, seed: seed, percent: percent, faults: faults)
            var settings = settings
            settings.location = try S3Location(
                endpoint: proxy.endpoint, region: settings.location.region, bucket: settings.location.bucket,
                prefix: settings.location.prefix, uriStyle: .path)
            return (proxy, store(settings))
        }
    }

    private func push(
        _ name: String, of fixture: ArchiveFixture, to source: RepositorySource, host: String = "db1"
    ) -> Result<PutOutcome?, KedgeError> {
        do throws(KedgeError) {
            let options = ArchivePush.Options(
                path: fixture.path("pg_wal/" + name), clusterName: "main", dataDirectory: fixture.path("."),
                repositories: [source], threads: 1, refusesDamagedWAL: false, hostName: host)
            return .success(
                try ArchivePush(options, random: SystemRandomSource(), time: SystemTimeSource()).run().stored.first?
                    .outcome)
        } catch {
            return .failure(error)
        }
    }

    private func bytes(of path: RawPath) throws -> [UInt8] {
        try FileDescriptor.open(path, .read).readAll(limit: 1 << 30)
    }

    /// What archive-get serves; nil for "absent".
    private func get(
        _ name: String, for fixture: ArchiveFixture, from source: RepositorySource
    ) throws -> Result<[UInt8]?, KedgeError> {
        let destination = fixture.path("fetched")
        do throws(KedgeError) {
            let options = ArchiveGet.Options(
                fileName: name, destination: destination, clusterName: "main", dataDirectory: fixture.path("."),
                repositories: [source], threads: 1, timeoutNanoseconds: 0)
            let outcome = try ArchiveGet(
                options, random: SystemRandomSource(), time: SystemTimeSource(), interruption: Interruption()
            ).run()
            if outcome == .absent { return .success(nil) }
        } catch {
            return .failure(error)
        }
        return .success(try bytes(of: destination))
    }

    @Test("bits that flip on the way, there and back, are never served and never acknowledged", arguments: Upstream.all)
    func flippedBits(_ upstream: Upstream) throws {
        let seed = testSeed()
        let fixture = try ArchiveFixture()
        let bench = try Bench(upstream)
        let secret = KeyEncryptionSecret.newKeyFile(random: SystemRandomSource())
        let direct = try fixture.makeRepository(in: bench.store, secret: secret)
        let (proxy, store) = try bench.proxied(seed: seed, percent: 15, [.flippedBit, .flippedRequestBit])
        let source = ArchiveFixture.source(store, secret: secret)
        let names = try fixture.writeSegments(count: 30)
        let random = SeededRandom(seed: seed &* 41)
        var (acknowledged, served, refused): (Set<String>, Int, Int) = ([], 0, 0)
        for _ in 0..<(PostgresInstallation.soakIsEnabled ? 1000 : 40) {
            let name = names[random.next(below: names.count)]
            if random.next(below: 2) == 0 {
                switch push(name, of: fixture, to: source) {
                case .success: acknowledged.insert(name)
                case .failure: refused += 1
                }
            } else {
                switch try get(name, for: fixture, from: source) {
                case .success(nil): #expect(!acknowledged.contains(name), "\(name) is there and was called absent")
                case .success(let found?):
                    served += 1
                    #expect(try found == bytes(of: fixture.path("pg_wal/" + name)), "\(name) was served damaged")
                case .failure: refused += 1
                }
            }
        }
        for name in acknowledged {
            let found = try get(name, for: fixture, from: direct).get()
            #expect(try found == bytes(of: fixture.path("pg_wal/" + name)), "\(name) was acknowledged")
        }
        #expect(!acknowledged.isEmpty && served > 0 && refused > 0)
        #expect(proxy.hits[.flippedBit, default: 0] > 0 && proxy.hits[.flippedRequestBit, default: 0] > 0)
        print("\(upstream.testDescription): \(proxy.hits), \(served) served, \(refused) refused, seed \(seed)")
    }

    @Test("of two hosts that archive other content under one name at once, one wins", arguments: Upstream.all)
    func race(_ upstream: Upstream) throws {
        let bench = try Bench(upstream)
        let hosts = [try ArchiveFixture(), try ArchiveFixture()]
        let source = try hosts[0].makeRepository(in: bench.store)
        let rounds = PostgresInstallation.soakIsEnabled ? 1000 : 6
        var wins = [0, 0]
        for round in 0..<rounds {
            let number = UInt64(5 + round)
            var content: [[UInt8]] = []
            let name = WALSegment(timeline: TimelineID(1), number: number).fileName(segmentSize: 1 << 20)
            for (host, fixture) in hosts.enumerated() {
                // WAL that a promoted and a forgotten primary write: the same place, other records.
                var builder = WALBuilder(firstSegment: number)
                builder.append(
                    manager: 10, info: 0x20, xid: 700, data: SeededRandom(seed: number << 1 | UInt64(host)).bytes(5000))
                builder.appendSwitch()
                let (_, bytes) = builder.segments[0]
                try fixture.write("pg_wal/" + name, bytes)
                content.append(bytes)
            }
            let outcomes = Monitor([Result<PutOutcome?, KedgeError>?](repeating: nil, count: 2))
            try parallelFor(count: 2, threads: 2, name: "host") {
            } body: { (_: inout Void, host) throws(KedgeError) in
                let outcome = push(name, of: hosts[host], to: source, host: "db\(host)")
                outcomes.update { $0[host] = outcome }
            }
            let found = outcomes.update { $0 }
            let winners = [0, 1].filter { if case .success(.created)? = found[$0] { true } else { false } }
            #expect(winners.count == 1, "\(name): \(found)")
            guard let winner = winners.first else { continue }
            wins[winner] += 1
            guard case .failure(let error)? = found[1 - winner] else {
                Issue.record("\(name): both were told that theirs is stored")
                continue
            }
            #expect((error.cause ?? error).code == .archiveConflict, "\(error)")
            #expect(try get(name, for: hosts[winner], from: source).get() == content[winner], "\(name)")
            for fixture in hosts { try FileSystem.removeFile(at: fixture.path("pg_wal/" + name)) }
        }
        print("\(upstream.testDescription): \(rounds) races, wins \(wins)")
    }
}
