// That a backup survives the failure of, and the death at, every single store operation: after a power failure what the
// catalogue shows restores, what was acknowledged shows, what was there before is untouched, and a rerun succeeds.
import KedgeBackup
import KedgeCatalog
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs servers: set KEDGE_TEST_SERVERS=1"))
struct BackupSweepTests {
    /// How many points of each fault are tried where not every one is.
    private static let sampledPoints = 5
    /// Every so many points what was restored is run as a server.
    private static let startedEvery = 10

    @Test(
        "a backup that fails or dies at any store operation shows whole or not at all, and a rerun succeeds",
        arguments: [(BackupRequest.full, false), (.delta, false), (.full, true)])
    func sweep(_ request: BackupRequest, resumes: Bool) throws {
        let cluster = try SweepCluster()
        let random = SeededRandom(seed: testSeed())
        let first = try cluster.backUp(by: cluster.base, into: cluster.base)
        if resumes { try killBackup(cluster) }
        let store = try cluster.copyOfBase()
        let whole = FaultyStore(store) { _ in nil }
        let second = try cluster.backUp(by: whole, into: store, request)
        #expect(second.record.type == (request == .full ? .full : .delta))
        #expect(second.record.takenOver.isEmpty != resumes)
        var sweep = Sweep(cluster: cluster, first: first.record.label, request: request)
        // The repository's side of a backup that resumes is that of any other: a few of its points will do.
        let isShort = resumes && !PostgresInstallation.soakIsEnabled
        for fault in isShort ? [Fault.failAfter, .crashMidway, .crashBeforeSync] : Fault.allCases {
            let numbers = try sweep.points(fault, of: whole.operations.count, random)
            #expect(numbers >= Self.sampledPoints || !SweepPart.isAll)
            print(
                "\(request) backup sweep\(resumes ? " that resumes" : ""), \(fault): \(numbers) points of "
                    + "\(whole.operations.count), seed \(testSeed())")
        }
        print("backup sweep: \(sweep.restored) backups restored, \(sweep.started) of them started as servers")
        #expect(sweep.started > 0 || !SweepPart.isAll)
    }

    /// Leaves a backup behind that died right before its commit.
    private func killBackup(_ cluster: SweepCluster) throws {
        let dying = FaultyStore(cluster.base) { operation in
            operation.kind == .put && operation.name.contains("/catalog/backup/") ? .crashBefore : nil
        }
        #expect(throws: KedgeError.self) { try cluster.backUp(by: dying, into: cluster.base) }
        #expect(try !cluster.catalog(cluster.base).intents().isEmpty)
    }

    /// Where a backup's fault is.
    private enum Point: CustomStringConvertible {
        /// At the operation of this number, from 1.
        case operation(Int)
        /// At the put of the commit record, or at the operation after it.
        case commit, afterCommit

        var description: String {
            switch self {
            case .operation(let number): "operation \(number)"
            case .commit: "the commit"
            case .afterCommit: "the operation after the commit"
            }
        }
    }

    /// What a sweep goes on with from point to point.
    private struct Sweep {
        let cluster: SweepCluster
        /// The backup that was there before.
        let first: Label
        var points = 0
        var restored = 0
        var started = 0
        let request: BackupRequest

        init(cluster: SweepCluster, first: Label, request: BackupRequest) {
            self.cluster = cluster
            self.first = first
            self.request = request
        }

        /// Tries every point in the long run, until one is behind the last operation; else both sides of the commit and
        /// a sample of the others. How many there are differs from run to run, with what changed in the cluster and how
        /// often a backup looked for WAL; `count` is that of one of them. Returns how many were tried.
        mutating func points(_ fault: Fault, of count: Int, _ random: SeededRandom) throws -> Int {
            if PostgresInstallation.soakIsEnabled {
                return try SweepPart.filter(Array(1...count * 2)).prefix { try point(fault, .operation($0)) }.count
            }
            for point in [Point.commit, .afterCommit] { try #require(try self.point(fault, point)) }
            for _ in 2..<BackupSweepTests.sampledPoints {
                var number = 1 + random.next(below: count)
                while try !point(fault, .operation(number)) { number = 1 + random.next(below: number - 1) }
            }
            return BackupSweepTests.sampledPoints
        }

        /// Tries one point. False if the backup had fewer operations.
        private mutating func point(_ fault: Fault, _ point: Point) throws -> Bool {
            let store = try cluster.copyOfBase()
            let before = store.contents
            // Numbers of the operations at which the fault happens, and of the commit.
            let hit = Monitor<StoreOperation?>(nil)
            let commit = Monitor<Int?>(nil)
            let faulty = FaultyStore(store) { operation in
                if operation.kind == .put, operation.name.contains("/catalog/backup/") {
                    commit.update { $0 = operation.number }
                }
                let isHere =
                    switch point {
                    case .operation(let number): operation.number == number
                    case .commit: operation.number == commit.update { $0 }
                    case .afterCommit: operation.number - 1 == commit.update { $0 }
                    }
                guard isHere else { return nil }
                hit.update { $0 = operation }
                return fault
            }
            let place: Comment = "\(fault) at \(point)"
            var acknowledged: Label?
            do {
                acknowledged = try cluster.backUp(by: faulty, into: store, request).record.label
            } catch let error as KedgeError {
                #expect(error.code != .defect, place)
            }
            guard let operation = hit.update({ $0 }) else { return false }
            points += 1
            try checkLeftovers(store, fault, operation, place)
            store.losePower()
            let after = store.contents
            // Leases alone may be replaced.
            let isKept = before.allSatisfy { after[$0.key] == $0.value || $0.key.text.hasPrefix("main/lease/") }
            #expect(isKept, place)

            let shown = try shownLabels(store, place)
            #expect(shown.contains(first), place)
            #expect(acknowledged.map { shown.contains($0) } ?? true, place)
            for label in shown where label != first { try restore(label, store, place) }
            let again = try cluster.backUp(by: store, into: store, request).record.label
            #expect(try shownLabels(store, place) == shown.union([again]), place)
            try restore(again, store, place, starts: points % startedEvery == 1)
            return true
        }

        private func shownLabels(_ store: MemoryStore, _ place: Comment) throws -> Set<Label> {
            let listing = try cluster.catalog(store).list()
            #expect(listing.unreadable.isEmpty, place)
            return Set(listing.backups.map(\.label))
        }

        /// A backup that lives on after a failure cleans up after itself.
        private func checkLeftovers(
            _ store: MemoryStore, _ fault: Fault, _ operation: StoreOperation, _ place: Comment
        ) throws {
            guard fault == .failBefore || fault == .failAfter else { return }
            // An upload whose beginning was not acknowledged is nobody's to abort.
            if operation.kind != .beginUpload { #expect(store.openUploads == 0, place) }
            guard operation.kind != .remove else { return }
            // Packs that are stored stay for the next backup, and the intent with them; so does that of a backup whose
            // commit nobody could be sure of.
            let backups = try cluster.catalog(store).list().backups
            let committed = Set(backups.map(\.label))
            let hasIntent = try cluster.catalog(store).intents().contains { !committed.contains($0) }
            let known = Set(backups.flatMap { $0.packs.map(\.id) })
            let hasPacks = store.names.contains { name in
                RandomID(hex: String(name.lastComponent)).map {
                    name.text == "main/" + ClusterLayout.pack($0).text && !known.contains($0)
                } ?? false
            }
            #expect(!hasIntent || hasPacks, place)
        }

        private mutating func restore(
            _ label: Label, _ store: MemoryStore, _ place: Comment, starts: Bool = true
        ) throws {
            try cluster.restore(label, from: store) { directory in
                restored += 1
                guard starts else { return }
                started += 1
                let rows = try cluster.countRows(in: directory, store)
                // No more rows came since.
                #expect(rows == cluster.rows, place)
            }
        }
    }
}
