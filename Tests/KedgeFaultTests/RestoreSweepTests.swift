// That a restore survives the failure of every single store operation and of every system call that writes: it never
// takes what it could not read for absent, what is unfinished can't be started, and a rerun restores all of it.
import Glibc
import KedgeBackup
import KedgeCatalog
import KedgeCore
import KedgeRepository
import KedgeRestore
import KedgeTestSupport
import Testing

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs servers: set KEDGE_TEST_SERVERS=1"))
struct RestoreSweepTests {
    /// How many points of each kind are tried where not every one is.
    private static let sampledPoints = 4

    @Test("a restore that fails or dies at any store operation leaves nothing that starts, and a rerun succeeds")
    func storeSweep() throws {
        let (cluster, label) = try backedUp()
        let store = try cluster.copyOfBase()
        let whole = FaultyStore(store) { _ in nil }
        try attempt(cluster, label, whole).get()
        expectUnchanged(store, cluster)
        var tried = 0
        for fault in Fault.allCases {
            for number in points(of: whole.operations.count) {
                let faulty = FaultyStore(store, fault, atOperation: number)
                let place: Comment = "\(fault) at operation \(number)"
                let result = attempt(cluster, label, faulty) { target in try expectUnstartable(target, place) }
                // Workers share the reads between them, so a run may have fewer operations than the one before.
                guard faulty.faultCount > 0 else { continue }
                tried += 1
                guard case .failure(let error) = result else {
                    Issue.record("\(place): the restore went on without \(faulty.operations[number - 1])")
                    continue
                }
                // The fault is input-output. Any other code would be a conclusion from what was not read.
                #expect(error.code == .inputOutput, "\(place): \(faulty.operations[number - 1]): \(error)")
            }
        }
        expectUnchanged(store, cluster)
        try cluster.restore(label, from: store) { target in
            let rows = try cluster.countRows(in: target, store)
            #expect(rows == cluster.rows)
        }
        #expect(tried >= Fault.allCases.count * Self.sampledPoints / 2)
        print("restore sweep: \(tried) points of \(whole.operations.count) operations, seed \(testSeed())")
    }

    @Test(
        "a restore whose disk is full or fails at any system call leaves nothing that starts, and a rerun succeeds",
        .enabled(if: SystemCallFaults.isAvailable, "needs seccomp(2) with user notification"),
        arguments: [ENOSPC, EIO])
    func callSweep(_ error: Int32) throws {
        let (cluster, label) = try backedUp()
        let store = try cluster.copyOfBase()
        let target = cluster.place("restored")
        let restoration = cluster.restoration(of: label, from: store, into: target)
        let whole = try SystemCallFaults.run({ _ in nil }, restoration.run)
        try whole.result.get()
        remove(target)
        var tried = 0
        for number in points(of: whole.calls.count) {
            let run = try SystemCallFaults.run(
                { $0.number == number && (error != ENOSPC || $0.kind.takesSpace) ? error : nil }, restoration.run)
            defer { remove(target) }
            guard run.faultCount > 0 else { continue }
            tried += 1
            let call = run.calls[number - 1]
            guard case .failure(let failure) = run.result else {
                Issue.record("\(call) failed with \(error) and the restore went on")
                continue
            }
            #expect(failure.code == (error == ENOSPC ? .noSpace : .inputOutput), "\(call): \(failure)")
            // Once pg_control is durable only the mark of the restore is left to be removed.
            let hints = ["Remove \"\(target)\"", "Remove \"kedge_restore.json\""]
            let isTold = hints.contains { failure.hint?.contains($0) == true }
            #expect(isTold || access(target, F_OK) != 0, "\(failure)")
            if error == ENOSPC { #expect("\(failure)".contains("bytes free"), "\(failure)") }
            // The last call makes the name of pg_control durable: what is there is complete then.
            if number < run.calls.count { try expectUnstartable(target, "\(call)") }
            let scratch = try Directory.entries(at: RawPath(cluster.workDirectory))
            #expect(!scratch.contains { DurableFile.isTemporary($0.name) }, "\(call)")
        }
        try cluster.restore(label, from: store) { target in
            let rows = try cluster.countRows(in: target, store)
            #expect(rows == cluster.rows)
        }
        #expect(tried >= Self.sampledPoints / 2)
        print("restore sweep, error \(error): \(tried) points of \(whole.calls.count) calls, seed \(testSeed())")
    }

    @Test("a backup of an older system is restored by its label alone (lesson 44)")
    func olderSystem() throws {
        let (cluster, label) = try backedUp()
        let store = try cluster.copyOfBase()
        let old = try cluster.source(store).openCluster("main", for: .write).newestRegistration
        // As after pg_upgrade: the same cluster, another system, registered later.
        let upgraded = Registration(
            clusterID: old.clusterID, name: old.name, systemIdentifier: SystemIdentifier(7),
            postgresVersion: 16, catalogVersion: 202_307_071, walSegmentSize: old.walSegmentSize,
            blockSize: old.blockSize, walBlockSize: old.walBlockSize,
            relationSegmentBlocks: old.relationSegmentBlocks,
            createdAt: Timestamp(microseconds: old.createdAt.microseconds + 1), createdBy: old.createdBy)
        _ = try ClusterRepository.register(upgraded, in: cluster.source(store).open(for: .write))
        let target = cluster.place("restored")
        var latest = cluster.restoration(of: label, from: store, into: target)
        latest.options.request = RestoreRequest(target: .immediate)
        let error = #expect(throws: KedgeError.self) { try latest.run() }
        #expect(error?.message == "cannot restore: the repository holds no backup of the present database system")
        #expect(error?.hint?.contains("--backup \(label)") == true)
        #expect(access(target, F_OK) != 0)
        try cluster.restore(label, from: store) { target in
            let rows = try cluster.countRows(in: target, store)
            #expect(rows == cluster.rows)
        }
    }

    private func backedUp() throws -> (SweepCluster, Label) {
        let cluster = try SweepCluster()
        return (cluster, try cluster.backUp(by: cluster.base, into: cluster.base).record.label)
    }

    /// Every point in the long run, else a sample.
    private func points(of count: Int) -> [Int] {
        if PostgresInstallation.soakIsEnabled { return SweepPart.filter(Array(1...count)) }
        let random = SeededRandom(seed: testSeed() &+ UInt64(count))
        var points: Set<Int> = [1, count]
        while points.count < min(Self.sampledPoints, count) { points.insert(1 + random.next(below: count)) }
        return points.sorted()
    }

    /// Restores and removes again what was written, after `look` has seen it.
    private func attempt(
        _ cluster: SweepCluster, _ label: Label, _ store: any ObjectStore, _ look: (String) throws -> Void = { _ in }
    ) -> Result<Void, KedgeError> {
        let target = cluster.place("restored")
        defer { remove(target) }
        let result = Result { () throws(KedgeError) in
            try cluster.restoration(of: label, from: store, into: target).run()
        }
        do {
            if case .failure = result { try look(target) }
        } catch {
            Issue.record(error)
        }
        return result
    }

    private func remove(_ target: String) {
        do {
            _ = try Subprocess(["rm", "-rf", target]).run()
        } catch {
            Issue.record(error)
        }
    }

    /// No server starts without its control file, and nothing may pass for one (xlog.c, ReadControlFile).
    private func expectUnstartable(_ target: String, _ place: Comment) throws {
        #expect(access(target + "/global/pg_control", F_OK) != 0, place)
        guard access(target, F_OK) == 0 else { return }
        let leftovers = try Subprocess(["find", target, "-name", ".kedge~*"]).run().outputText
        #expect(leftovers == "", place)
    }

    /// A restore only reads.
    private func expectUnchanged(_ store: MemoryStore, _ cluster: SweepCluster) {
        let base = cluster.base.contents
        #expect(store.contents.allSatisfy { base[$0.key] == $0.value })
    }
}
