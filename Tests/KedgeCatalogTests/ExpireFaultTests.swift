// That expire survives the failure of, and the death at, every single store operation: each time whatever the
// catalogue shows can be restored, also after a power failure, and the next run ends where an undisturbed one does. And
// that expire, a backup, a pin, an unexpire and a restore can meet at any two steps.
import KedgeCatalog
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

/// Lets two sides go on in turns: the first for so many operations, then the second for so many, then the first to its
/// end.
private final class Turns: Sendable {
    private struct State {
        var counts = [0, 0]
        var isDone = [false, false]
    }

    private let limits: [Int]
    private let state = Monitor(State())

    init(first: Int, second: Int) { limits = [first, second] }

    /// Waits until this side may do its next operation.
    func enter(_ side: Int) {
        state.wait { state -> Void? in
            let mayGo: Bool
            if side == 0 {
                let isPaused = state.counts[0] == self.limits[0]
                mayGo = !isPaused || state.isDone[1] || state.counts[1] >= self.limits[1]
            } else {
                let firstPaused = state.counts[0] >= self.limits[0]
                mayGo = state.isDone[0] || (firstPaused && state.counts[1] < self.limits[1])
            }
            guard mayGo else { return nil }
            state.counts[side] += 1
            return ()
        }
    }

    func finish(_ side: Int) { state.update { $0.isDone[side] = true } }

    /// Runs both; each gets a store whose operations take turns.
    func run(_ store: any ObjectStore, _ sides: [@Sendable (any ObjectStore) -> Void]) throws(KedgeError) {
        try parallelFor(
            count: 2, threads: 2, name: "turns", makeState: { () throws(KedgeError) in 0 },
            body: { (_, side) throws(KedgeError) in
                sides[side](
                    FaultyStore(store) { _ in
                        self.enter(side)
                        return nil
                    })
                self.finish(side)
            })
    }
}

@Suite struct ExpireFaultTests {
    /// Backups 1 and 2 are condemned for long enough, 3 is about to be; a backup died; 4 is a delta of 3, and 5 stays.
    private func prepared() throws -> ExpireHarness {
        let harness = try ExpireHarness()
        for number in UInt64(1)...2 { try harness.backup(number) }
        try harness.backup(3)
        try harness.dieInBackup(9)
        // Two are condemned.
        try harness.expire(byHand: ExpireHarness.label(1))
        try harness.expire(byHand: ExpireHarness.label(2))
        harness.time.advance(seconds: 90_000)
        try harness.backup(4, base: 3)
        try harness.backup(5)
        return harness
    }

    @Test("whatever expire dies of, what is shown restores, and the next runs end where an undisturbed one does")
    func sweep() throws {
        let harness = try prepared()
        let original = harness.memory.store.copy()
        func settle(_ store: MemoryStore) throws -> [ObjectName] {
            for _ in 1...3 { try harness.expire(store) }
            // What a crash left of asking for the time goes after a day.
            return store.names.filter { !$0.text.hasPrefix("main/probe/") }
        }
        let expected = try settle(original.copy())
        #expect(try harness.shown(in: original.copy()).count == 5)
        var points = 0
        // Every point in the long tier, every fifth otherwise.
        let step = PostgresInstallation.soakIsEnabled ? 1 : 5
        for fault in Fault.allCases {
            for number in stride(from: 1 + Int(testSeed()) % step, to: .max, by: step) {
                let store = original.copy()
                let faulty = FaultyStore(store, fault, atOperation: number)
                do throws(KedgeError) {
                    try harness.expire(faulty)
                } catch {
                    // It says so, and that is all.
                }
                guard faulty.faultCount > 0 else { break }
                points += 1
                if number % 2 == 0 { store.losePower() }
                let shown = try harness.shown(in: store)
                #expect(
                    shown.contains(ExpireHarness.label(5)) && shown.contains(ExpireHarness.label(4, .delta)),
                    "\(fault) at \(number)")
                // A lease may have been left.
                for name in store.names where name.text.hasPrefix("main/lease/") { _ = try store.remove([name]) }
                #expect(
                    try settle(store) == expected, "\(fault) at \(number): \(faulty.operations.last?.description ?? "")"
                )
                _ = try harness.shown(in: store)
            }
        }
        #expect(points > 200 / step)
    }

    /// Pairs of pauses: all of them in the long tier, a seeded sample otherwise.
    private func pauses(_ first: Int, _ second: Int, _ sample: Int) -> [(Int, Int)] {
        let all = (0...first).flatMap { one in (0...second).map { (one, $0) } }
        guard !PostgresInstallation.soakIsEnabled else { return all }
        let random = SeededRandom(seed: testSeed())
        return (0..<sample).map { _ in all[random.next(below: all.count)] }
    }

    /// How many operations `body` does.
    private func count(_ store: MemoryStore, _ body: (any ObjectStore) -> Void) -> Int {
        let counting = FaultyStore(store) { _ in nil }
        body(counting)
        return counting.operations.count
    }

    /// Runs `other` against an expire, each paused at each step and each going first; `check` then gets the store and
    /// what `other` answered.
    private func meet(
        _ harness: ExpireHarness, sample: Int, expires: Int = 1,
        _ other: @escaping @Sendable (any ObjectStore) -> KedgeError?,
        check: (MemoryStore, KedgeError?, String) throws -> Void
    ) throws {
        let original = harness.memory.store.copy()
        // Where there are several, each is a day after the one before, and the other side is that long in one step.
        let expire: @Sendable (any ObjectStore) -> Void = { store in
            do throws(KedgeError) {
                for _ in 1...expires {
                    if expires > 1 { harness.time.advance(seconds: 90_000) }
                    try harness.expire(store)
                }
            } catch {
                Issue.record("expire: \(error)")
            }
        }
        let counts = [count(original.copy(), expire), count(original.copy()) { _ = other($0) }]
        for order in [[0, 1], [1, 0]] {
            for (first, second) in pauses(counts[order[0]], counts[order[1]], sample) {
                let store = original.copy()
                let answer = Monitor<KedgeError?>(nil)
                let sides: [@Sendable (any ObjectStore) -> Void] = [
                    expire,
                    { store in
                        let result = other(store)
                        answer.update { $0 = result }
                    },
                ]
                try Turns(first: first, second: second).run(store, order.map { sides[$0] })
                let place = "\(order[0] == 0 ? "expire" : "other") first for \(first), then \(second)"
                _ = try harness.shown(in: store)
                try check(store, answer.update { $0 }, place)
                harness.time.advance(seconds: 1)
            }
        }
    }

    /// What a rescue came to; `notFound` where the backup is gone.
    private enum Rescue: Equatable {
        case certain, uncertain, notFound
    }

    private func rescue(
        _ harness: ExpireHarness, _ label: Label, byPin: Bool, _ store: any ObjectStore
    ) throws(KedgeError) -> Rescue {
        do throws(KedgeError) {
            let pinning = try harness.pinning(store)
            return try (byPin ? pinning.pin(label) : pinning.unexpire(label)) == .removalHasBegun
                ? .uncertain : .certain
        } catch  where error.code == .notFound {
            return .notFound
        }
    }

    @Test(
        "a pin or unexpire and an expire that meet at any two steps: what was acknowledged holds",
        arguments: [true, false])
    func meetRescue(byPin: Bool) throws {
        let harness = try prepared()
        let label = ExpireHarness.label(byPin ? 1 : 2)
        let told = Monitor<Rescue?>(nil)
        try meet(harness, sample: 30) { store in
            do throws(KedgeError) {
                let rescue = try self.rescue(harness, label, byPin: byPin, store)
                told.update { $0 = rescue }
                return nil
            } catch {
                return error
            }
        } check: { store, error, place in
            #expect(error == nil, "\(place)")
            if byPin { for _ in 1...2 { try harness.expire(store) } }
            let isThere = try harness.shown(in: store).contains(label)
            let answer = told.update { told in
                defer { told = nil }
                return told
            }
            switch answer {
            case .certain?: #expect(isThere, "\(place)")
            case .uncertain?: break
            case .notFound?, nil: #expect(!isThere, "\(place)")
            }
            // A pin that came too late does not stay either.
            #expect(harness.names("catalog/pin", in: store).isEmpty == !(byPin && isThere), "\(place)")
        }
    }

    @Test("a pin that was acknowledged holds where an expire overtakes another at any step but the removal itself")
    func overtaken() throws {
        let harness = try prepared()
        let original = harness.memory.store.copy()
        let label = ExpireHarness.label(1)
        let record = "main/catalog/backup/20261121T021100Z-full-1001"
        let counted = FaultyStore(original.copy()) { _ in nil }
        try harness.expire(counted)
        #expect(counted.operations.contains { $0.kind == .remove && $0.name == record })
        var certain = 0
        let step = PostgresInstallation.soakIsEnabled ? 1 : 2
        for number in stride(from: 1 + Int(testSeed()) % step, through: counted.operations.count, by: step) {
            let store = original.copy()
            let told = Monitor<Rescue?>(nil)
            let paused = FaultyStore(store) { operation in
                guard operation.number == number, operation.kind != .remove || operation.name != record else {
                    return nil
                }
                do throws(KedgeError) {
                    _ = try rescue(harness, label, byPin: true, store)
                    // Longer than a lease lasts without a sign of life.
                    harness.time.advance(seconds: 600)
                    try harness.expire(store)
                    let second = try rescue(harness, label, byPin: true, store)
                    told.update { $0 = second }
                } catch {
                    Issue.record("operation \(number): \(error)")
                }
                return nil
            }
            try harness.expire(paused)
            guard told.update({ $0 }) == .certain else { continue }
            certain += 1
            #expect(try harness.shown(in: store).contains(label), "\(counted.operations[number - 1])")
        }
        #expect(certain > 10)
    }

    @Test("after an expire that died anywhere, a pin and an unexpire rescue every backup that has its commit record")
    func rescueAfterDeath() throws {
        let harness = try prepared()
        let original = harness.memory.store.copy()
        var uncertain = 0
        let step = PostgresInstallation.soakIsEnabled ? 1 : 4
        for number in stride(from: 1 + Int(testSeed()) % step, to: .max, by: step) {
            let store = original.copy()
            let faulty = FaultyStore(store, .crashBefore, atOperation: number)
            do throws(KedgeError) { try harness.expire(faulty) } catch {}
            guard faulty.faultCount > 0 else { break }
            for name in store.names where name.text.hasPrefix("main/lease/") { _ = try store.remove([name]) }
            for byPin in [true, false] {
                for label in [ExpireHarness.label(1), ExpireHarness.label(2)] {
                    let store = store.copy()
                    let place = "\(byPin ? "pin" : "unexpire") \(label) after \(number)"
                    let isThere = try harness.shown(in: store).contains(label)
                    let answer = try rescue(harness, label, byPin: byPin, store)
                    #expect((answer == .notFound) == !isThere, "\(place)")
                    uncertain += answer == .uncertain ? 1 : 0
                    let info = try RepositorySurvey(cluster: harness.cluster(store), interruption: Interruption()).run()
                    let shown = info.backups.first { $0.record.label == label }
                    #expect(shown?.removalHasBegun == (isThere ? answer == .uncertain : nil), "\(place)")
                    // The next run is under other rules, or a day later: it has been taken back for a whole grace
                    // period, or for good.
                    try harness.expire(store)
                    #expect(try harness.shown(in: store).contains(label) == isThere, "\(place)")
                    #expect(
                        !harness.names("catalog/removing", in: store).contains { $0.hasSuffix(label.text) }, "\(place)")
                    if byPin {
                        harness.time.advance(seconds: 90_000)
                        try harness.expire(store)
                        #expect(try harness.shown(in: store).contains(label) == isThere, "\(place)")
                    }
                }
            }
        }
        #expect(uncertain > 0)
    }

    @Test("a delta and an expire that meet at any two steps: a delta that was committed restores (lesson 24)")
    func meetBackup() throws {
        let harness = try prepared()
        try PaperBackup(try harness.cluster()).archive(18...20)
        try meet(harness, sample: 30) { store in
            do throws(KedgeError) {
                try Self.takeDelta(6, base: 3, harness, store)
                return nil
            } catch {
                return error
            }
        } check: { store, error, place in
            for _ in 1...2 {
                harness.time.advance(seconds: 90_000)
                try harness.expire(store)
            }
            let shown = try harness.shown(in: store)
            if error == nil { #expect(shown.contains(ExpireHarness.label(6, .delta)), "\(place)") }
        }
    }

    @Test("a backup that takes packs over and expires that give their backup up: once committed it restores")
    func meetResuming() throws {
        let harness = try prepared()
        try PaperBackup(try harness.cluster()).archive(18...20)
        let hasTakenOver = Monitor([false: 0, true: 0])
        try meet(harness, sample: 40, expires: 3) { store in
            do throws(KedgeError) {
                let count = try Self.takeDelta(6, base: 5, resumes: true, harness, store)
                hasTakenOver.update { $0[count > 0, default: 0] += 1 }
                return nil
            } catch {
                return error
            }
        } check: { store, error, place in
            harness.time.advance(seconds: 90_000)
            try harness.expire(store)
            let shown = try harness.shown(in: store)
            #expect(shown.contains(ExpireHarness.label(6, .delta)) == (error == nil), "\(place)")
        }
        // The order decides; both must have been met.
        #expect(hasTakenOver.update { $0 }.allSatisfy { $0.value > 0 })
    }

    @Test("interrupted are backups of this system that have an intent, no commit record and no lease")
    func interrupted() throws {
        let harness = try prepared()
        let cluster = try harness.cluster()
        let catalog = BackupCatalog(cluster)
        func found(of system: UInt64 = 7) throws -> (labels: Set<Label>, packs: [RandomID], left: [String]) {
            let interrupted = try InterruptedBackups(
                in: catalog, besides: ExpireHarness.label(6), of: SystemIdentifier(system))
            var packs: [RandomID] = []
            let left = try interrupted.forEachPack(unless: Interruption()) { pack throws(KedgeError) in
                packs.append(pack.id)
            }
            return (interrupted.labels, packs, left)
        }
        let (label, pack) = (ExpireHarness.label(9), RandomID(high: 0xDEAD, low: 9))
        #expect(try found().labels == [label] && found().packs == [pack])
        #expect(try found(of: 8).labels == [])
        // Nobody's, and another's.
        try PaperBackup(cluster).putPack(RandomID(high: 0xDEAD, low: 10), [[1]])
        try PaperBackup(cluster).putPack(RandomID(high: 0xDEAD, low: 11), [[1]], label: ExpireHarness.label(8))
        #expect(try found().packs == [pack])
        harness.memory.store.damage(cluster.name(ClusterLayout.pack(pack))) { $0[$0.count - 5] ^= 1 }
        #expect(try found().packs == [] && found().left.count == 1)
        // Under way.
        let process = ProcessIdentity(hostName: "db2", processID: 1, bootID: nil, namespace: nil, startTicks: nil)
        let lease = try Lease.take(
            LeaseRequest(operation: "backup", process: process, label: label.text), in: cluster,
            progress: WorkProgress().snapshot, time: harness.time)
        #expect(try found().labels == [])
        try lease.release()
        #expect(try found().labels == [label])
        try catalog.commit(harness.record(9))
        #expect(try found().labels == [])
        try catalog.begin(harness.intent(6))
        #expect(try found().labels == [])
    }

    /// A backup that is paused for days in any of its steps, between its last look and its commit included.
    @Test("a delta that hangs for days while expires take it for dead: once committed it restores (lesson 24)")
    func meetHangingBackup() throws {
        let harness = try prepared()
        try PaperBackup(try harness.cluster()).archive(18...20)
        try meet(harness, sample: 30, expires: 3) { store in
            do throws(KedgeError) {
                try Self.takeDelta(6, base: 5, harness, store)
                return nil
            } catch {
                return error
            }
        } check: { store, error, place in
            harness.time.advance(seconds: 90_000)
            try harness.expire(store)
            let shown = try harness.shown(in: store)
            #expect(shown.contains(ExpireHarness.label(6, .delta)) == (error == nil), "\(place)")
        }
    }

    /// The very moment that the look before the commit cannot see.
    @Test("a backup that hangs for days right before its commit takes it back, and one that cannot look says so")
    func hangBeforeCommit() throws {
        let harness = try prepared()
        try PaperBackup(try harness.cluster()).archive(18...20)
        let store = harness.memory.store
        let hanging = FaultyStore(store) { operation in
            guard operation.kind == .put, operation.name.contains("/catalog/backup/") else { return nil }
            for _ in 1...2 {
                harness.time.advance(seconds: 90_000)
                do throws(KedgeError) {
                    try harness.expire(store)
                } catch {
                    Issue.record("expire: \(error)")
                }
            }
            return nil
        }
        let error = #expect(throws: KedgeError.self) { try Self.takeDelta(6, base: 5, harness, hanging) }
        #expect(error?.code == .notFound)
        #expect(error?.message.contains("taken back right after its commit: its intent was removed") == true)
        #expect(try !harness.shown().contains(ExpireHarness.label(6, .delta)))

        // It cannot look again: it says so, and the backup is there.
        let commit = Monitor<Int?>(nil)
        let blind = FaultyStore(store) { operation in
            if operation.kind == .put, operation.name.contains("/catalog/backup/") {
                commit.update { $0 = operation.number }
            }
            return operation.number - 1 == commit.update { $0 } ? .failBefore : nil
        }
        let doubt = #expect(throws: KedgeError.self) { try Self.takeDelta(7, base: 5, harness, blind) }
        #expect(doubt?.message.contains("which is committed") == true)
        #expect(try BackupCatalog(harness.cluster()).isCommitted(ExpireHarness.label(7, .delta)))
    }

    @Test("a restore and an expire that meet at any two steps: a backup that is not removed yet restores")
    func meetRestore() throws {
        let harness = try prepared()
        let original = try BackupCatalog(try harness.cluster()).list().backups
        let record = try #require(original.first { $0.label == ExpireHarness.label(3) })
        try meet(harness, sample: 20) { store in
            do throws(KedgeError) {
                try ExpireHarness.restore(record, from: harness.cluster(store))
                return nil
            } catch {
                return error
            }
        } check: { _, error, place in
            #expect(error == nil, "\(place)")
        }
    }

    /// The steps of a backup as the repository sees them (docs/design.md section 4, "Commit").
    ///
    /// Returns how many packs of interrupted backups it refers to.
    @discardableResult
    private static func takeDelta(
        _ number: UInt64, base: UInt64, resumes: Bool = false, _ harness: ExpireHarness, _ store: any ObjectStore
    ) throws(KedgeError) -> Int {
        let cluster = try harness.cluster(store)
        let catalog = BackupCatalog(cluster)
        let label = ExpireHarness.label(number, .delta)
        let commit = BackupCommit(catalog, label: label, parent: ExpireHarness.label(base))
        try catalog.begin(harness.intent(number, base: base))
        if let why = try commit.whyParentIsLost() {
            try catalog.end(label)
            throw KedgeError(.notFound, "cannot use the parent: \(why)", hint: "Take a full backup.")
        }
        var taken: [RandomID] = []
        if resumes {
            let interrupted = try InterruptedBackups(in: catalog, besides: label, of: SystemIdentifier(7))
            _ = try interrupted.forEachPack(unless: Interruption()) { pack throws(KedgeError) in
                taken.append(pack.id)
            }
        }
        do {
            let extent = Extent(length: 1, source: .pack(RandomID(high: 0xDA7A, low: base), frame: 0, offset: 0))
            let extents = [extent] + taken.map { Extent(length: 1, source: .pack($0, frame: 0, offset: 0)) }
            let content = FileContent(
                size: UInt64(extents.count), identity: nil, regions: [nil], extents: extents)
            let entries = PaperEntry.minimal() + [PaperEntry("shared", .content(content))]
            var paper = PaperBackup(cluster)
            paper.putCommitRecord = { (_, record) throws(KedgeError) in
                if let doubt = try commit.put(record) { throw doubt }
            }
            try paper.commit(entries, as: harness.record(number, base: base), number: number)
        } catch let error as KedgeError {
            try catalog.end(label)
            throw error
        } catch {
            throw KedgeError(.defect, "\(error)", hint: "This is a test.")
        }
        try catalog.end(label)
        return taken.count
    }
}
