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
        arguments: [BackupRequest.full, .delta])
    func sweep(_ request: BackupRequest) throws {
        let cluster = try SweepCluster()
        let random = SeededRandom(seed: testSeed())
        let first = try cluster.backUp(by: cluster.base, into: cluster.base)
        let store = try cluster.copyOfBase()
        let whole = FaultyStore(store) { _ in nil }
        let second = try cluster.backUp(by: whole, into: store, request)
        #expect(second.record.type == (request == .full ? .full : .delta))
        var sweep = Sweep(cluster: cluster, first: first.record.label, request: request)
        for fault in Fault.allCases {
            var numbers = 0
            for number in Self.points(whole.operations, random) {
                guard try sweep.point(fault, number) else { break }
                numbers += 1
            }
            #expect(numbers >= Self.sampledPoints || !SweepPart.isAll)
            print(
                "\(request) backup sweep, \(fault): \(numbers) points of \(whole.operations.count), seed \(testSeed())")
        }
        print("backup sweep: \(sweep.restored) backups restored, \(sweep.started) of them started as servers")
        #expect(sweep.started > 0 || !SweepPart.isAll)
    }

    /// Every point in the long run, until one is behind the last operation; else a sample that has both sides of the
    /// commit in it.
    private static func points(_ operations: [StoreOperation], _ random: SeededRandom) -> [Int] {
        // How often a backup looks for WAL differs from run to run, so there may be more than were counted.
        if PostgresInstallation.soakIsEnabled { return SweepPart.filter(Array(1...operations.count * 2)) }
        var points: Set<Int> = []
        if let commit = operations.last(where: { $0.kind == .put && $0.name.contains("/catalog/backup/") }) {
            points = [commit.number, commit.number + 1]
        }
        // Not the very last ones: a run that has fewer operations would not meet them.
        while points.count < sampledPoints { points.insert(1 + random.next(below: operations.count * 9 / 10)) }
        return points.sorted()
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

        /// Tries one point. False if the backup had fewer operations.
        mutating func point(_ fault: Fault, _ number: Int) throws -> Bool {
            let store = try cluster.copyOfBase()
            let before = store.contents
            let faulty = FaultyStore(store, fault, atOperation: number)
            let place: Comment = "\(fault) at operation \(number)"
            var acknowledged: Label?
            do {
                acknowledged = try cluster.backUp(by: faulty, into: store, request).record.label
            } catch let error as KedgeError {
                #expect(error.code != .defect, place)
            }
            if faulty.faultCount == 0 { return false }
            points += 1
            try checkLeftovers(store, fault, faulty.operations[number - 1], place)
            store.losePower()
            let after = store.contents
            #expect(before.allSatisfy { after[$0.key] == $0.value }, place)

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
            #expect(try cluster.catalog(store).intents() == [], place)
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
