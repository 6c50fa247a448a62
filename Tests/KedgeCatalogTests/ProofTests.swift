// That proofs are stored and found by name, that only what was opened counts, and what counts: against a model of its
// own that reads the proofs one by one as they happened.

import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@Suite struct ProofTests {
    static let now = Timestamp(secondsSince1970: 1_795_226_400)

    static func backup(_ suffix: String = "7k3q", manifest: UInt64 = 1) throws -> CommitRecord {
        var record = CommitRecord.sample(
            try #require(Label("20261121T020000Z-full-\(suffix)")), start: LSN(0x100028), stop: LSN(0x100200))
        record.manifest = .init(length: 1, checksum: ContentHash(high: 0, low: manifest))
        return record
    }

    @Test("a proof survives JSON with all it can hold, and names the member that is missing")
    func json() throws {
        var proof = ProofRecord.sample(
            of: try Self.backup(), in: RandomID(high: 1, low: 2), level: .drilled, finished: Self.now)
        proof.readSince = Self.now.adding(seconds: -86_400)
        proof.serverVersion = "15.8"
        proof.target = .init(
            kind: "time", value: "2026-11-21T03:00:00Z", reachedTimeline: TimelineID(2), reachedLSN: LSN(7),
            reachedTime: Self.now)
        proof.checks = [
            .init(name: "a", result: .failed, subject: "s", detail: "d", milliseconds: 3),
            .init(name: "b", result: .warning),
        ]
        proof.phases = [.init(name: "fetch", milliseconds: 1, bytes: 2), .init(name: "start", milliseconds: 4)]
        proof.objectives = .init(rtoSeconds: 1, measuredSeconds: 2, rpoSeconds: 3, lagSeconds: 4)
        proof.verified = .init(
            systemIdentifier: SystemIdentifier(7), packs: [.init(id: RandomID(high: 3, low: 4), bytes: 5)],
            wal: [
                .init(timeline: TimelineID(1), first: 2, last: 3),
                .init(timeline: TimelineID(1), first: 64, last: 65, sizes: ContentHash(high: 1, low: 2)),
            ], partsPerMillion: 50_000)
        func read(_ json: JSONValue) throws -> ProofRecord {
            try ProofRecord(JSONRecord(parsing: json.compactText.utf8, what: "proof"))
        }
        #expect(try read(proof.jsonValue) == proof)
        guard case .object(let members) = proof.jsonValue else { return }
        let optional: Set = ["serverVersion", "target", "covers", "objectives", "verifiedObjects", "readSince"]
        for member in members {
            let rest = JSONValue.object(members.filter { $0.key != member.key })
            if optional.contains(member.key) {
                #expect(throws: Never.self) { try read(rest) }
            } else {
                let error = #expect(throws: KedgeError.self) { try read(rest) }
                #expect(error?.detail?.contains("\"\(member.key)\"") == true)
            }
        }
        proof.verified?.partsPerMillion = 0
        #expect(throws: KedgeError.self) { try read(proof.jsonValue) }
    }

    @Test("names are parsed exactly as they are printed")
    func names() throws {
        let label = try Self.backup().label
        for level in ProofLevel.allCases {
            for result in ProofResult.allCases {
                let name = ProofName(label: label, time: Self.now, level: level, result: result)
                #expect(ProofName(label: label, name.text) == name)
            }
        }
        for text in [
            "", "20261121T030000Z-verified", "20261121T030000Z-verified-passed-x", "20261321T030000Z-verified-passed",
            "20261121T250000Z-verified-passed", "20261121T030000z-verified-passed", "20261121 030000Z-verified-passed",
            "20261121T030000Z-Verified-passed", "20261121T030000Z-verified-maybe", "2026112éT03000Z-verified-passed",
        ] { #expect(ProofName(label: label, text) == nil, "\(text)") }
    }

    @Test("proofs are stored once each, listed by name and opened; another of the same second takes the next")
    func catalog() throws {
        let repository = try MemoryRepository()
        let catalog = ProofCatalog(try repository.cluster())
        let (first, second) = (try Self.backup(), try Self.backup("aaaa"))
        let proof = ProofRecord.sample(of: first, in: repository.identity.id, finished: Self.now)
        #expect(try catalog.newest(first.label) == nil)
        let stored = try catalog.put(proof)
        let again = try catalog.put(proof)
        #expect(stored == proof)
        #expect(again.finished == proof.finished.adding(seconds: 1))
        try catalog.put(
            .sample(of: second, in: repository.identity.id, level: .drilled, result: .failed, finished: Self.now))
        _ = try repository.store.put("main/catalog/proof/whatever", ObjectBody([1]), .createOnly)
        let names = try catalog.names()
        #expect(names.proofs[first.label] == [stored.name, again.name])
        #expect(names.proofs[second.label]?.map(\.text) == ["20261121T020000Z-drilled-failed"])
        #expect(names.strangers == ["catalog/proof/whatever"])
        #expect(try catalog.list(first.label).proofs == [stored, again])
        #expect(try catalog.newest(first.label) == again)
        #expect(try catalog.newest(first.label, level: .drilled) == nil)
    }

    @Test("a name without a record of its own proves nothing: copied, renamed and forged proofs are damage")
    func forged() throws {
        let repository = try MemoryRepository()
        let cluster = try repository.cluster()
        let catalog = ProofCatalog(cluster)
        let backup = try Self.backup()
        let failed = try catalog.put(
            .sample(of: backup, in: repository.identity.id, result: .failed, finished: Self.now))
        let sealed = try repository.store.readAll(cluster.name(ClusterLayout.proof(failed.name)), limit: 1 << 20)
        var forgery = failed.name
        forgery = ProofName(
            label: forgery.label, time: forgery.time.adding(seconds: 5), level: .drilled, result: .passed)
        _ = try repository.store.put(cluster.name(ClusterLayout.proof(forgery)), ObjectBody(sealed), .createOnly)
        // Sealed with the right key under a name that is not its own, as only a holder of the key could.
        let other = ProofName(
            label: forgery.label, time: forgery.time.adding(seconds: 6), level: .verified, result: .passed)
        try cluster.putRecord(failed.jsonValue, .proof, ClusterLayout.proof(other))
        let listing = try catalog.list(backup.label)
        #expect(listing.proofs == [failed])
        #expect(listing.unreadable.map(\.error.code) == [.damaged, .damaged])
        let (standing, unreadable) = try catalog.standing(of: backup, catalog.names(backup.label))
        #expect(standing == ProofStanding(failures: [failed]))
        #expect(unreadable.count == 2)
    }

    @Test("what counts as proven, in generated histories, is what a model says; and opening less decides the same")
    func standing() throws {
        let random = SeededRandom(seed: testSeed())
        let repository = try MemoryRepository(encrypted: false)
        let catalog = ProofCatalog(try repository.cluster())
        var seen: Set<[Bool]> = []
        for round in 0..<120 {
            let suffix = String(10_000 + round).suffix(4)
            let backup = try Self.backup(String(suffix))
            let stranger = try Self.backup(String(suffix), manifest: 2)
            var proofs: [ProofRecord] = []
            for _ in 0..<random.next(below: 9) {
                var proof = ProofRecord.sample(
                    of: random.next(below: 6) == 0 ? stranger : backup,
                    in: random.next(below: 8) == 0 ? RandomID(high: 9, low: 9) : repository.identity.id,
                    level: random.next(below: 2) == 0 ? .verified : .drilled,
                    result: random.next(below: 3) == 0 ? .failed : .passed,
                    finished: Self.now.adding(seconds: Int64(random.next(below: 12))),
                    partsPerMillion: random.next(below: 4) == 0 ? 50_000 : 1_000_000)
                proof.started = proof.finished.adding(seconds: -Int64(random.next(below: 4)))
                if random.next(below: 3) == 0 {
                    proof.readSince = proof.started.adding(seconds: -Int64(random.next(below: 6)))
                }
                proofs.append(proof)
            }
            var stored: [ProofRecord] = []
            for proof in proofs { stored.append(try catalog.put(proof)) }
            let standing = ProofStanding(
                of: backup.label, manifest: backup.manifest, repositoryID: repository.identity.id, proofs: stored)
            #expect(standing == Model(backup, repository.identity.id).run(stored), "round \(round)")
            #expect(try catalog.standing(of: backup, catalog.names(backup.label)).standing == standing)
            seen.insert([standing.drilled != nil, standing.verified != nil, standing.failure != nil])
        }
        // Every outcome that there can be, or the cases prove little. A standing drill leaves no drill's failure open.
        #expect(seen.count >= 7, "\(seen)")
    }

    /// Lives through the proofs as they happened.
    private struct Model {
        let backup: CommitRecord
        let repositoryID: RandomID
        var proven: [ProofLevel: ProofRecord] = [:]
        var passed: [ProofLevel: ProofRecord] = [:]
        /// Oldest first.
        var open: [ProofRecord] = []

        init(_ backup: CommitRecord, _ repositoryID: RandomID) {
            self.backup = backup
            self.repositoryID = repositoryID
        }

        mutating func happens(_ proof: ProofRecord) {
            guard proof.manifest == backup.manifest, proof.repositoryID == repositoryID else { return }
            if proof.result == .failed {
                proven = [:]
                open.append(proof)
            } else if !proof.isSample {
                proven[proof.level] = proof
                passed[proof.level] = proof
                open.removeAll { $0.level == proof.level }
            }
        }

        func run(_ proofs: [ProofRecord]) -> ProofStanding {
            var model = self
            // At one second the failure comes last.
            for proof in proofs.sorted(by: {
                ($0.finished, $0.result == .failed ? 1 : 0) < ($1.finished, $1.result == .failed ? 1 : 0)
            }) { model.happens(proof) }
            let isDoubted = model.open.contains { failure in
                failure.level == .drilled
                    && model.proven[.verified].map { $0.readSince ?? $0.started < failure.finished } == true
            }
            return ProofStanding(
                drilled: model.proven[.drilled], verified: isDoubted ? nil : model.proven[.verified],
                failures: model.open.sorted {
                    ($0.finished, $0.level == .drilled ? 1 : 0) > ($1.finished, $1.level == .drilled ? 1 : 0)
                }, lastDrilled: model.passed[.drilled], lastVerified: model.passed[.verified])
        }
    }
}
