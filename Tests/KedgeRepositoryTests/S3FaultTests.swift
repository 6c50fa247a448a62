// An object store behind a proxy that lets everything go wrong: what was acknowledged is there, what is visible is
// whole, and every error says which request it was.
import Glibc
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@Suite struct S3FaultTests {
    /// Where the proxy leads: a store on paper, and real ones with conditional put where there are some.
    private enum Upstream: CustomTestStringConvertible {
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
            return [.paper] + real.prefix(S3FaultTests.isSoak ? real.count : 1).map { .real($0) }
        }
    }

    private struct Bench {
        let paper: PaperObjectStore?
        let proxy: FaultProxy
        /// Through the proxy, with few and short waits.
        let store: RetryingStore
        /// The same place, directly.
        let direct: any ObjectStore

        init(_ upstream: Upstream, seed: UInt64, percent: Int, faults: [FaultProxy.Fault]) throws {
            var policy = RetryPolicy()
            policy.firstDelayNanoseconds = 1_000_000
            policy.maximumAttempts = 8
            let directory = "faults-\(RandomID(from: SystemRandomSource()).hex)"
            var settings: S3ClientSettings
            switch upstream {
            case .paper:
                let paper = try PaperObjectStore()
                self.paper = paper
                settings = try paper.settings(prefix: directory)
            case .real(let server):
                paper = nil
                var access = S3TestServer.Access()
                access.prefix = directory
                settings = try server.settings(access)
            }
            let port = try #require(settings.location.description.split(separator: ":").last.flatMap { UInt16($0) })
            proxy = try FaultProxy(to: port, seed: seed, percent: percent, faults: faults)
            direct = S3Store(settings, conditionalPut: true, partBytes: 5 << 20)
            settings.location = try S3Location(
                endpoint: proxy.endpoint, region: settings.location.region, bucket: settings.location.bucket,
                prefix: directory, uriStyle: .path)
            store = RetryingStore(
                S3Store(settings, conditionalPut: true, partBytes: paper == nil ? 5 << 20 : 64 << 10),
                policy: policy, time: SystemTimeSource(), random: SeededRandom(seed: seed),
                interruption: Interruption())
        }
    }

    private func bytes(_ count: Int, _ seed: UInt64) -> [UInt8] {
        let random = SeededRandom(seed: seed)
        return random.bytes(count)
    }

    private static let isSoak = getenv("KEDGE_TEST_SOAK") != nil

    /// What may be under a name: bytes that somebody tried to store; nil: nothing.
    private struct Expected {
        var possible: [[UInt8]?]
    }

    @Test(
        "what is acknowledged is there and whole, whatever goes wrong on the way", arguments: Upstream.all,
        FaultProxy.Fault.allCases.filter { $0 != .flippedBit })
    private func acknowledged(_ upstream: Upstream, _ fault: FaultProxy.Fault) throws {
        let seed = testSeed()
        let bench = try Bench(upstream, seed: seed, percent: 30, faults: [fault])
        try run(
            bench, SeededRandom(seed: seed &* 31), operations: Self.isSoak ? 1000 : 24,
            isTold: ![.truncated, .truncatedOrderly, .wrongLength].contains(fault))
        #expect(bench.proxy.hits[fault, default: 0] > 0)
    }

    @Test("the same with all faults mixed, so many that calls fail for good", arguments: Upstream.all)
    private func storm(_ upstream: Upstream) throws {
        let seed = testSeed()
        let faults = FaultProxy.Fault.allCases.filter { $0 != .flippedBit }
        let bench = try Bench(upstream, seed: seed, percent: 75, faults: faults)
        try run(bench, SeededRandom(seed: seed &* 37), operations: Self.isSoak ? 1000 : 30, isTold: false)
    }

    /// With `isTold` every answer of the store comes whole, and so with its request's id and its reason.
    private func run(_ bench: Bench, _ random: SeededRandom, operations: Int, isTold: Bool) throws {
        var expected: [ObjectName: Expected] = [:]
        var failures = 0
        for number in 0..<operations {
            let name = try #require(ObjectName("d\(random.next(below: 3))/o\(random.next(below: operations))"))
            let known = expected[name]?.possible ?? [nil]
            do throws(KedgeError) {
                switch random.next(below: 6) {
                case 0, 1:
                    let body = bytes(random.next(below: 20_000) + 1, UInt64(number))
                    expected[name] = Expected(possible: known + [body])
                    let outcome = try bench.store.put(name, ObjectBody(body), .createOnly)
                    if outcome == .created {
                        #expect(known.contains { $0 == nil }, "\(name) was created although it was there")
                        expected[name] = Expected(possible: [body])
                    } else {
                        #expect(known.contains { $0 != nil }, "\(name) is there although it was not")
                        expected[name] = Expected(possible: known.filter { $0 != nil })
                    }
                case 2:
                    // Parts of real stores have 5 MiB at least: in the long tests a few such objects are enough.
                    let isLarge = !Self.isSoak || random.next(below: 4) == 0
                    let body = bytes(bench.paper != nil ? 200_000 : isLarge ? 6 << 20 : 50_000, UInt64(number))
                    expected[name] = Expected(possible: known + [body])
                    let upload = try bench.store.beginUpload(name, expectedBytes: 0)
                    for start in stride(from: 0, to: body.count, by: 1 << 20) {
                        try upload.append(Array(body[start..<min(start + 1 << 20, body.count)]))
                    }
                    if try upload.finish() == .created {
                        #expect(known.contains { $0 == nil }, "\(name) was created although it was there")
                        expected[name] = Expected(possible: [body])
                    } else {
                        expected[name] = Expected(possible: known.filter { $0 != nil })
                    }
                case 3:
                    let found =
                        try bench.store.status(of: name) == nil ? nil : bench.store.readAll(name, limit: 8 << 20)
                    #expect(known.contains { $0 == found }, "\(name) holds what nobody stored")
                    expected[name] = Expected(possible: [found])
                case 4:
                    var found: Set<ObjectName> = []
                    try bench.store.forEachObject(below: nil) { found.insert($0.name) }
                    for (name, expected) in expected {
                        let isThere = found.contains(name)
                        #expect(expected.possible.contains { ($0 != nil) == isThere }, "\(name), listed: \(isThere)")
                    }
                default:
                    expected[name] = Expected(possible: known + [nil])
                    if try bench.store.remove([name]).isEmpty { expected[name] = Expected(possible: [nil]) }
                }
            } catch {
                failures += 1
                // An answer of the store comes with its request's id; without an answer there is none.
                let detail = error.detail ?? ""
                let isAnswered = detail.contains(" answered ")
                #expect(!isTold || !isAnswered || detail.contains("request id"), "\(error)")
                // A refusal whose reason was cut off passes for one of permission.
                let isOdd = ![.repositoryUnavailable, .timeout].contains(error.code)
                #expect(!isOdd || !isTold && error.code == .permission, "\(error)")
            }
        }
        bench.proxy.setCalm(true)
        for (name, expected) in expected {
            let found = try bench.direct.status(of: name) == nil ? nil : bench.direct.readAll(name, limit: 8 << 20)
            #expect(expected.possible.contains { $0 == found }, "\(name), \(failures) failures")
        }
    }

    @Test("of two clients that store other bytes under one name one wins, through all faults", arguments: Upstream.all)
    private func race(_ upstream: Upstream) throws {
        let seed = testSeed()
        let faults = FaultProxy.Fault.allCases.filter { $0 != .flippedBit }
        let bench = try Bench(upstream, seed: seed, percent: 25, faults: faults)
        for round in 0..<(Self.isSoak ? 1000 : 15) {
            let name = try #require(ObjectName("races/r\(round)"))
            let outcomes = Monitor([PutOutcome?](repeating: nil, count: 2))
            try parallelFor(count: 2, threads: 2, name: "race") {
            } body: { (_: inout Void, number) throws(KedgeError) in
                do throws(KedgeError) {
                    let outcome = try bench.store.put(
                        name, ObjectBody(bytes(3000, UInt64(round * 2 + number))), .createOnly)
                    outcomes.update { $0[number] = outcome }
                } catch {
                    // Its outcome is not known.
                }
            }
            let found = outcomes.update { $0 }
            let winners = found.indices.filter { found[$0] == .created }
            #expect(winners.count <= 1)
            guard try bench.direct.status(of: name) != nil else {
                #expect(found.allSatisfy { $0 == nil })
                continue
            }
            let stored = try bench.direct.readAll(name, limit: 3000)
            if let winner = winners.first { #expect(stored == bytes(3000, UInt64(round * 2 + winner))) }
            #expect((0..<2).contains { stored == bytes(3000, UInt64(round * 2 + $0)) })
        }
    }
}
