// Proves what Lease.swift promises: who gets a lease, who keeps it and who learns of its loss, whatever the hosts'
// clocks say and wherever a store fails, dies or lets somebody else in between.
import Glibc
import KedgeCodec
import KedgeCore
import KedgeTestSupport
import Synchronization
import Testing

@testable import KedgeRepository

/// A cluster on a store with a clock of its own, as two hosts see it.
private struct LeaseWorld {
    let clock = ManualTime(now: Timestamp(secondsSince1970: 1_795_500_000))
    let store: MemoryStore
    let repository: MemoryRepository

    init(hasConditionalPut: Bool = true) throws {
        store = MemoryStore(time: clock, hasConditionalPut: hasConditionalPut)
        repository = try MemoryRepository(store: store)
    }

    /// The cluster through another store that ends in the same one.
    func cluster(_ wrap: (MemoryStore) -> any ObjectStore) throws -> ClusterRepository {
        let wrapped = wrap(store)
        return try RepositorySource(
            settings: repository.settings, openStore: { wrapped }, createStore: { wrapped }
        ).openCluster("main", for: .write)
    }
}

/// A host with a clock of its own.
private struct LeaseHost {
    let name: String
    let time: ManualTime
    var process: ProcessIdentity

    init(_ name: String, hoursOff: Int64 = 0) {
        self.name = name
        time = ManualTime(now: Timestamp(secondsSince1970: 1_795_500_000 + hoursOff * 3600))
        process = ProcessIdentity(
            hostName: name, processID: 4711, bootID: "boot of \(name)", namespace: "pid:[1]", startTicks: 7)
    }

    func take(_ cluster: ClusterRepository, label: String? = nil) throws(KedgeError) -> Lease {
        let progress = WorkProgress()
        progress.begin("copying files", totalBytes: 4 << 30)
        progress.advance(1 << 30)
        return try Lease.take(
            LeaseRequest(operation: "backup", process: process, label: label), in: cluster,
            progress: progress.snapshot, time: time)
    }
}

private let idle = WorkProgress().snapshot

extension Lease {
    /// Whether it is still ours, shown by renewing it.
    fileprivate var isKept: Bool {
        get throws {
            if case .renewed = try renew(idle) { true } else { false }
        }
    }
}

@Suite struct LeaseTests {
    @Test("the verdict follows from holder, death and age alone, in generated cases")
    func verdicts() {
        let random = SeededRandom(seed: testSeed())
        let world = ProcessIdentity(hostName: "a", processID: 1)
        var counts: [String: Int] = [:]
        for _ in 0..<20_000 {
            let mine = RandomID(high: 0, low: UInt64(random.next(below: 3)))
            let expiry = [0, 1, 30, 300, 3600, 7200, UInt64.max][random.next(below: 7)]
            let age = [Int64.min, -5, 0, 29, 30, 31, 300, 301, 302, 3600, 3601, Int64.max][random.next(below: 12)]
            let hasEnded = random.next(below: 4) == 0
            var record: LeaseRecord?
            if random.next(below: 5) > 0 {
                record = LeaseRecord(
                    operation: "backup", holder: RandomID(high: 0, low: UInt64(random.next(below: 3))), process: world,
                    label: nil, takenAt: Timestamp(microseconds: 0), expiresAfterSeconds: expiry, progress: idle,
                    createdBy: "")
            }
            let seen = LeaseObservation(record: record, ageSeconds: age, holderHasEnded: hasEnded)
            let verdict = LeaseVerdict.of(seen, for: mine)
            // Nobody is left alone for less than a second or more than an hour.
            let effective = Int64(record == nil ? 300 : max(1, min(expiry, 3600)))
            switch verdict {
            case .free: Issue.record("something is there")
            case .mine: #expect(record?.holder == mine)
            case .stale:
                #expect(record?.holder != mine)
                #expect(age > effective || record != nil && hasEnded)
            case .held(let left):
                #expect(record?.holder != mine)
                #expect(age <= effective && !(record != nil && hasEnded))
                // Waiting as long as it says is enough, and a second less is not.
                let waited = max(age, 0) + Int64(left)
                #expect(waited == effective + 1)
            }
            counts["\(verdict)".prefix { $0 != "(" }.description, default: 0] += 1
        }
        #expect(counts.count == 3 && counts.values.allSatisfy { $0 > 500 }, "\(counts)")
        #expect(LeaseVerdict.of(nil, for: .zero) == .free)
    }

    @Test("the second host is told who holds the lease, since when, how far they are and what to do")
    func message() throws {
        let world = try LeaseWorld()
        let cluster = try world.repository.cluster()
        let first = try LeaseHost("db1").take(cluster, label: "20261121T020000Z-full-7k3q")
        world.clock.advance(seconds: 12)
        let error = #expect(throws: KedgeError.self) { try LeaseHost("db2").take(cluster) }
        #expect(error?.code == .locked)
        #expect(error?.code.exitStatus == 4)
        #expect(
            error?.message
                == "could not take lease \"main/lease/backup\" of repository \"main\": another kedge holds it")
        #expect(
            error?.detail
                == "It is held by process 4711 of host \"db1\" since \(first.record.takenAt) by its clock, for "
                + "20261121T020000Z-full-7k3q; it was renewed 12 s ago: copying files, 25 %, 1 GB of 4 GB.")
        #expect(
            error?.hint
                == "Wait until that process has ended, and run the command again.  If you know that it is dead: its "
                + "lease counts no more in 4 min 49 s without a renewal, or when object \"main/lease/backup\" is "
                + "removed.")
        // Nothing of the attempt is left.
        #expect(world.store.names.filter { $0.text.hasPrefix("main/probe") } == [])
        try first.release()
        try LeaseHost("db2").take(cluster).release()
        #expect(world.store.names.filter { $0.text.hasPrefix("main/lease") } == [])
    }

    @Test("hosts whose clocks are hours apart judge by the store's clock alone", arguments: [-30, -1, 0, 1, 30])
    func clocks(_ hours: Int64) throws {
        let world = try LeaseWorld()
        let cluster = try world.repository.cluster()
        let (one, other) = (LeaseHost("db1", hoursOff: hours), LeaseHost("db2"))
        let first = try one.take(cluster)
        for _ in 0..<20 {
            world.clock.advance(seconds: 290)
            #expect(throws: KedgeError.self) { try other.take(cluster) }
            #expect(try first.isKept)
        }
        world.clock.advance(seconds: 300)
        #expect(throws: KedgeError.self) { try other.take(cluster) }
        world.clock.advance(seconds: 1)
        let second = try other.take(cluster)
        #expect(try !first.isKept)
        #expect(try second.isKept)
        // Who has lost it takes nothing away.
        try first.release()
        #expect(try second.isKept)
    }

    @Test("a holder that died on this host is followed at once, and only if it surely died")
    func deathOnThisHost() throws {
        let child = try Subprocess(["sleep", "600"]).start(output: .discarded, errors: .discarded)
        var running = child
        var dead = ProcessIdentity.current(hostName: "db1")
        dead.processID = running.id
        dead.startTicks = nil
        let observer = ProcessIdentity.current(hostName: "db1")
        #expect(observer.bootID != nil && observer.namespace != nil && observer.startTicks != nil)
        #expect(!observer.hasEnded(seenBy: observer))
        #expect(!dead.hasEnded(seenBy: observer))
        running.kill(9)
        _ = try running.wait()
        #expect(dead.hasEnded(seenBy: observer))
        // Another host, another boot, another container: nothing is known of the number there.
        for change: (inout ProcessIdentity) -> Void in [
            { $0.bootID = "another" }, { $0.bootID = nil }, { $0.namespace = "pid:[2]" }, { $0.namespace = nil },
            { $0.processID = 0 }, { $0.processID = -1 },
        ] {
            var changed = dead
            change(&changed)
            #expect(!changed.hasEnded(seenBy: observer), "\(changed)")
        }
        // The number is in use again, by a process that began later.
        var reused = observer
        reused.startTicks = 1
        #expect(reused.hasEnded(seenBy: observer))

        let world = try LeaseWorld()
        let cluster = try world.repository.cluster()
        var (victim, next) = (LeaseHost("db1"), LeaseHost("db1"))
        victim.process = dead
        next.process = observer
        let lost = try victim.take(cluster)
        var elsewhere = LeaseHost("db2")
        elsewhere.process.bootID = "another"
        #expect(throws: KedgeError.self) { try elsewhere.take(cluster) }
        let taken = try next.take(cluster)
        #expect(try taken.isKept)
        #expect(try !lost.isKept)
    }

    @Test("an object that can't be read as a lease is left alone for five minutes, and then taken over")
    func unreadable() throws {
        let world = try LeaseWorld()
        let cluster = try world.repository.cluster()
        world.store.plant("main/lease/backup", [1, 2, 3])
        world.clock.advance(seconds: 300)
        let error = #expect(throws: KedgeError.self) { try LeaseHost("db1").take(cluster) }
        #expect(error?.code == .locked)
        #expect(error?.detail == "It cannot be read with the keys of this host.")
        #expect(try Lease.all(in: cluster).map(\.operation) == ["backup"])
        world.clock.advance(seconds: 1)
        let lease = try LeaseHost("db1").take(cluster)
        #expect(try lease.isKept)
        // A lease under another's name is none.
        let bytes = try #require(world.store.contents["main/lease/backup"])
        world.store.plant("main/lease/expire", bytes)
        #expect(try Lease.all(in: cluster).map { $0.record == nil } == [false, true])
    }

    @Test("all leases are listed with what their holders do")
    func listing() throws {
        let world = try LeaseWorld()
        let cluster = try world.repository.cluster()
        let lease = try LeaseHost("db1").take(cluster, label: "x")
        let listed = try Lease.all(in: cluster)
        #expect(listed.map(\.record) == [lease.record])
        #expect(listed.first?.renewedAt == world.clock.now())
        #expect(listed.first?.record?.progressText == "copying files, 25 %, 1 GB of 4 GB")
        let json = lease.record.jsonValue
        #expect(try LeaseRecord(JSONRecord(json, what: "lease")) == lease.record)
    }

    // MARK: - The keeper

    @Test("renewals that fail for a while are told at the end, and the lease is kept")
    func failingRenewals() throws {
        let world = try LeaseWorld()
        let cluster = try world.repository.cluster()
        let lease = try LeaseHost("db1").take(cluster)
        let keeper = try LeaseKeeper(lease, showing: WorkProgress(), every: nil)
        world.store.setReachable(false)
        keeper.beat()
        keeper.beat()
        world.store.setReachable(true)
        keeper.beat()
        #expect(lease.record.renewals == 1)
        #expect(
            keeper.end() == [
                "The lease \"backup\" could not be renewed 2 time(s), at last: could not reach memory store."
            ])
        #expect(try Lease.all(in: cluster).isEmpty)
    }

    @Test("a lease that was taken over is told, and left to whoever has it")
    func takenOver() throws {
        let world = try LeaseWorld()
        let cluster = try world.repository.cluster()
        let lease = try LeaseHost("db1").take(cluster)
        let keeper = try LeaseKeeper(lease, showing: WorkProgress(), every: nil)
        world.clock.advance(seconds: 301)
        let other = try LeaseHost("db2").take(cluster)
        keeper.beat()
        #expect(
            keeper.end() == [
                "The lease \"backup\" was taken over by process 4711 of host \"db2\", which took this process for "
                    + "dead: the same work may have been done twice."
            ])
        #expect(try other.isKept)
    }

    @Test("the keeper's thread renews by itself and shows progress")
    func thread() throws {
        let world = try LeaseWorld()
        let cluster = try world.repository.cluster()
        let lease = try LeaseHost("db1").take(cluster)
        let progress = WorkProgress()
        progress.begin("copying files", totalBytes: 10)
        let keeper = try LeaseKeeper(lease, showing: progress, every: .milliseconds(1))
        progress.advance(7)
        while lease.record.doneBytes != 7 { sched_yield() }
        #expect(try Lease.all(in: cluster).first?.record?.doneBytes == 7)
        #expect(keeper.end() == [])
    }

    // MARK: - Sweeps

    /// At most one of them is the holder once each has renewed, and one is if anybody believes to be.
    private func checkOneHolder(_ believers: [Lease], _ place: Comment) throws {
        // Who has lost it learns it at the latest with the second round.
        let first = try believers.filter { try $0.isKept }
        let second = try first.filter { try $0.isKept }
        #expect(second.count == min(believers.count, 1), place)
    }

    @Test("wherever the store fails or dies, at most one holds the lease after a renewal", arguments: Fault.allCases)
    func faultSweep(_ fault: Fault) throws {
        var points = 0
        for number in 1... {
            let world = try LeaseWorld()
            let other = try world.repository.cluster()
            // What opening costs is not part of the sweep.
            let isArmed = Mutex(false)
            let counter = Mutex(0)
            let isHit = Mutex(false)
            let faulty = FaultyStore(world.store) { _ in
                guard isArmed.withLock({ $0 }) else { return nil }
                let count = counter.withLock { count in
                    count += 1
                    return count
                }
                guard count == number else { return nil }
                isHit.withLock { $0 = true }
                return fault
            }
            let cluster = try world.cluster { _ in faulty }
            isArmed.withLock { $0 = true }
            // A stale lease of a third host, so that taking has all its steps.
            _ = try LeaseHost("db0").take(other)
            world.clock.advance(seconds: 301)
            var lease: Lease?
            var isReleased = false
            do {
                lease = try LeaseHost("db1").take(cluster)
                _ = try lease?.isKept
                try lease?.release()
                isReleased = true
            } catch {
                // As a backup, it goes on without.
            }
            isArmed.withLock { $0 = false }
            let place: Comment = "\(fault) at \(number)"
            // Another host gets it in the end: at once after a release, else after the expiry.
            var taken: Lease?
            do throws(KedgeError) {
                taken = try LeaseHost("db2").take(other)
            } catch {
                #expect(error.code == .locked && !isReleased, place)
                world.clock.advance(seconds: 301)
                taken = try LeaseHost("db2").take(other)
            }
            let second = try #require(taken)
            let believers = isReleased || fault.isFatal ? [second] : [lease, second].compactMap { $0 }
            try checkOneHolder(believers, place)
            guard isHit.withLock({ $0 }) else { break }
            points += 1
        }
        #expect(points >= 10)
    }

    @Test("another host that comes in between any two steps leaves one holder", arguments: [true, false])
    func interleavings(_ hasConditionalPut: Bool) throws {
        /// What the one does while the other comes in between.
        let actions: [(String, (Lease?, ClusterRepository) throws -> Lease?)] = [
            ("take over", { _, cluster in try LeaseHost("db1").take(cluster) }),
            ("renew", { lease, _ in try (lease?.isKept ?? false) ? lease : nil }),
            (
                "release",
                { lease, _ in
                    try lease?.release()
                    return nil
                }
            ),
        ]
        var points = 0
        for (name, action) in actions {
            for number in 1... {
                let world = try LeaseWorld(hasConditionalPut: hasConditionalPut)
                let other = try world.repository.cluster()
                let counter = Mutex(Int.min)
                let second = Mutex<Lease?>(nil)
                let watched = FaultyStore(world.store) { _ in
                    let count = counter.withLock { count in
                        count += count == Int.min ? 0 : 1
                        return count
                    }
                    if count == number {
                        let taken = try? LeaseHost("db2").take(other)
                        second.withLock { $0 = taken }
                    }
                    return nil
                }
                let cluster = try world.cluster { _ in watched }
                let own = name == "take over" ? nil : try LeaseHost("db1").take(cluster)
                if own == nil { _ = try LeaseHost("db0").take(other) }
                world.clock.advance(seconds: 301)
                counter.withLock { $0 = 0 }
                var kept: Lease?
                do {
                    kept = try action(own, cluster)
                } catch let error as KedgeError {
                    #expect(error.code == .locked)
                }
                let reached = counter.withLock { $0 } >= number
                let believers = [kept, second.withLock { $0 }].compactMap { $0 }
                #expect(!believers.isEmpty || name == "release" || !reached, "\(name) at \(number)")
                try checkOneHolder(believers, "\(name) at \(number)")
                guard reached else { break }
                points += 1
            }
        }
        #expect(points >= 12)
    }
}

extension Fault {
    /// The process is gone: it believes nothing any more.
    fileprivate var isFatal: Bool { self != .failBefore && self != .failAfter }
}
