// A restore with several repositories: which one the backup comes from, where WAL comes from, and what is said.
import KedgeCatalog
import KedgeCore
import KedgeRepository
import KedgeRestore
import KedgeTestSupport
import Testing

@Suite struct RestoreSeriesTests {
    /// Two repositories of one cluster, each with a backup of its own and segments 5 to 7.
    private final class Pair {
        let directory: TemporaryDirectory
        let first: MemoryRepository
        let second: MemoryRepository
        var target: RawPath { RawPath(directory("target")) }

        static let labels = ["20261121T020000Z-full-7k3q", "20261121T030000Z-full-aaaa"]

        init(firstSegments: ClosedRange<UInt64> = 5...7, secondSegments: ClosedRange<UInt64> = 5...7) throws {
            directory = try TemporaryDirectory()
            _ = try Directory.create(at: RawPath(directory("work")))
            first = try MemoryRepository(name: "first", walSegmentSize: 1 << 20)
            second = try MemoryRepository(name: "second", walSegmentSize: 1 << 20)
            for (number, (repository, segments)) in [(first, firstSegments), (second, secondSegments)].enumerated() {
                let backup = PaperBackup(try repository.cluster(), seed: UInt64(number + 1))
                try backup.archive(segments)
                try backup.commit(
                    PaperEntry.minimal(),
                    as: .sample(
                        try #require(Label(Pair.labels[number])), start: LSN(5 << 20 | 40), stop: LSN(6 << 20 | 312)))
            }
        }

        func restore(
            _ request: RestoreRequest = RestoreRequest(), only: [RepositorySource]? = nil,
            from given: [RepositorySource]? = nil, takesUnavailableForAbsent: Bool = false
        ) throws(KedgeError) -> RestoreSeries.Outcome {
            var options = Restore.Options(
                clusterName: "main", request: request, pgdata: target, configuredPgdata: "/nowhere",
                restoreCommand: RestoreCommandLine(words: ["kedge"]), processMax: 2,
                workDirectory: RawPath(directory("work")))
            options.takesUnavailableForAbsent = takesUnavailableForAbsent
            let all = given ?? [first.source, second.source]
            return try RestoreSeries(only ?? all, walSources: all).run(
                options, progress: WorkProgress(), time: SystemTimeSource(), random: SystemRandomSource(),
                interruption: Interruption())
        }

        /// Flips a byte in the middle of every object of `repository` whose name holds `part`.
        func damage(_ repository: MemoryRepository, _ part: String) throws {
            let names = repository.store.names.filter { $0.text.contains(part) }
            try #require(!names.isEmpty)
            for name in names { repository.store.damage(name) { $0[$0.count / 2] ^= 1 } }
        }
    }

    private func error(_ body: () throws(KedgeError) -> Void) -> KedgeError? {
        do throws(KedgeError) {
            try body()
            return nil
        } catch {
            return error
        }
    }

    @Test("the backup comes from the first repository that has one for the target")
    func first() throws {
        let pair = try Pair()
        let outcome = try pair.restore()
        #expect(outcome.restored.repository == "first" && outcome.passedOver.isEmpty)
        #expect(outcome.restored.plan.backup.label.text == Pair.labels[0])
    }

    @Test("a repository that is down, damaged in its catalogue or its manifest is passed over, and that is told")
    func passedOver() throws {
        for part in [nil, "/catalog/backup/", "/backup/"] {
            let pair = try Pair()
            if let part { try pair.damage(pair.first, part) } else { pair.first.store.setReachable(false) }
            let outcome = try pair.restore()
            #expect(outcome.restored.repository == "second", "\(part ?? "down")")
            #expect(outcome.restored.plan.backup.label.text == Pair.labels[1])
            // A commit record that is damaged makes its backup one that is not there.
            let expected: Set<ErrorCode> =
                part == nil ? [.repositoryUnavailable] : [.damaged, .targetUnreachable, .notFound]
            #expect(outcome.passedOver.map(\.repository) == ["first"])
            #expect(outcome.passedOver.allSatisfy { expected.contains($0.error.code) }, "\(outcome.passedOver)")
        }
    }

    @Test("a repository that proves no absence is passed over as one that is away: no server recovers with it")
    func stranger() throws {
        let pair = try Pair()
        var stranger = pair.first.source
        stranger.settings.placeMemory = StrangePlace()
        let outcome = try pair.restore(from: [stranger, pair.second.source])
        #expect(outcome.restored.repository == "second")
        #expect(outcome.passedOver.map(\.error.code) == [.repositoryUnavailable])
        #expect(outcome.restored.recoveryReads == ["second"])
        // Alone it is refused before the first byte, but for a server that is never told that nothing more comes.
        let alone = try Pair()
        stranger = alone.first.source
        stranger.settings.placeMemory = StrangePlace()
        let failure = error { () throws(KedgeError) in _ = try alone.restore(from: [stranger]) }
        #expect(failure?.code == .repositoryUnavailable)
        #expect(failure?.hint?.contains("--replace-repository") == true, "\(failure?.hint ?? "")")
        #expect(try !FileSystem.exists(alone.target))
        #expect(try alone.restore(RestoreRequest(standby: true), from: [stranger]).restored.repository == "first")
        let other = try Pair()
        stranger = other.first.source
        stranger.settings.placeMemory = StrangePlace()
        #expect(try other.restore(from: [stranger], takesUnavailableForAbsent: true).restored.repository == "first")
    }

    @Test("a backup that is asked for is found in whichever repository it is")
    func label() throws {
        let pair = try Pair()
        let outcome = try pair.restore(RestoreRequest(backup: Label(Pair.labels[1])))
        #expect(outcome.restored.repository == "second")
    }

    @Test("damage that shows when writing has begun is an error that names who else has a backup for the target")
    func damagedPack() throws {
        let pair = try Pair()
        // The pack of the data, not that of the manifest's parts.
        try pair.damage(pair.first, RandomID(high: 0xDA7A, low: 1).hex)
        let failure = error { () throws(KedgeError) in _ = try pair.restore() }
        #expect(failure?.code == .damaged)
        #expect(failure?.hint?.contains("\"second\" (\(Pair.labels[1]))") == true, "\(failure?.hint ?? "")")
        #expect(failure?.hint?.contains("--repository second") == true)
        // Where nobody else can serve, nobody is named.
        let alone = try Pair()
        try alone.damage(alone.first, RandomID(high: 0xDA7A, low: 1).hex)
        alone.second.store.setReachable(false)
        let other = error { () throws(KedgeError) in _ = try alone.restore() }
        #expect(other?.code == .damaged && other?.hint?.contains("--repository") == false)
    }

    @Test("where none can serve, the error names each and why")
    func none() throws {
        let pair = try Pair()
        pair.first.store.setReachable(false)
        try pair.damage(pair.second, "/catalog/backup/")
        let failure = error { () throws(KedgeError) in _ = try pair.restore() }
        #expect(failure?.code == .repositoryUnavailable)
        let text = "\(failure?.message ?? "") \(failure?.detail ?? "")"
        #expect(text.contains("Repository \"first\":") && text.contains("Repository \"second\":"), "\(text)")
        #expect(try !FileSystem.exists(pair.target))
    }

    @Test("what the user has to decide or to mend is not left to the order of repositories")
    func ownFaults() throws {
        let pair = try Pair()
        _ = try Directory.create(at: pair.target)
        _ = try DurableFile.write([1], to: pair.target.appending("file"), random: SystemRandomSource())
        let failure = error { () throws(KedgeError) in _ = try pair.restore() }
        #expect(failure?.code == .notEmpty)
        #expect(!RestoreSeries.mayTryNext(after: .targetAmbiguous) && !RestoreSeries.mayTryNext(after: .interrupted))
    }

    @Test("latest is the end of what all repositories have, and one that lags or is damaged takes nothing away")
    func lagging() throws {
        let pair = try Pair(firstSegments: 5...7, secondSegments: 5...9)
        #expect(try pair.restore().restored.plan.chain.limit.position == 10 << 20)
        // The backup comes from the second alone, WAL still from both.
        let other = try Pair(firstSegments: 5...9, secondSegments: 5...7)
        let outcome = try other.restore(only: [other.second.source])
        #expect(outcome.restored.repository == "second")
        #expect(outcome.restored.plan.chain.limit.position == 10 << 20)
        // A hole in each, at different places, is none.
        let holes = try Pair()
        let gone = try #require(holes.first.store.names.first { $0.text.hasSuffix("000000010000000000000006") })
        _ = try holes.first.store.remove([gone])
        try holes.damage(holes.second, "000000010000000000000005")
        #expect(try holes.restore().restored.plan.chain.limit.position == 8 << 20)
    }

    @Test("a repository whose WAL could not be read is told")
    func walUnread() throws {
        let pair = try Pair()
        pair.second.store.setReachable(false)
        let outcome = try pair.restore()
        #expect(outcome.restored.repository == "first")
        #expect(outcome.restored.unreadable.map(\.name) == ["repository second"])
    }

    // MARK: - A partial segment

    @Test("a partial segment comes from whichever repository has a single good one, as the plan says")
    func partial() throws {
        func content(_ pair: Pair) throws -> [UInt8] {
            let path = pair.target.appending("pg_wal/000000010000000000000008")
            return try FileDescriptor.open(path, .read).readAll(limit: 1 << 21)
        }
        let pair = try Pair()
        try PaperBackup(pair.second.cluster()).archive(8...8, isPartial: true)
        let outcome = try pair.restore()
        #expect(outcome.restored.repository == "first")
        #expect(outcome.restored.plan.partial?.number == 8)
        let bytes = try content(pair)
        #expect(bytes.count == 1 << 20 && bytes.contains { $0 != 0 })
        // Two in the first, which contradict each other.
        let other = try Pair()
        for repository in [other.first, other.second] {
            try PaperBackup(repository.cluster()).archive(8...8, isPartial: true)
        }
        let file = WALFileName.partial("000000010000000000000008.partial")
        try PaperBackup(other.first.cluster()).archive(file, [UInt8](repeating: 1, count: 1 << 20))
        _ = try other.restore()
        #expect(try content(other) == bytes)
        // A damaged one in the first.
        let damaged = try Pair()
        for repository in [damaged.first, damaged.second] {
            try PaperBackup(repository.cluster()).archive(8...8, isPartial: true)
        }
        try damaged.damage(damaged.first, "000000010000000000000008.partial")
        _ = try damaged.restore()
        #expect(try content(damaged) == bytes)
    }

    @Test("a partial segment that cannot be had ends a restore before anything is written")
    func partialLost() throws {
        let pair = try Pair()
        try PaperBackup(pair.second.cluster()).archive(8...8, isPartial: true)
        // Its facts, which the plan is made from, lie ahead of the data: the end alone is damaged.
        let name = try #require(pair.second.store.names.first { $0.text.contains(".partial") })
        pair.second.store.damage(name) { $0[$0.count - 1] ^= 1 }
        let failure = error { () throws(KedgeError) in _ = try pair.restore() }
        #expect(failure?.code == .damaged, "\(failure?.description ?? "")")
        #expect(try !FileSystem.exists(pair.target))
    }

    @Test("while a repository is away the warnings say that its timelines are unknown, and what to do (lesson 28)")
    func awayRepository() throws {
        let pair = try Pair()
        let whole = try pair.restore(RestoreRequest(target: .immediate))
        #expect(whole.restored.warnings == whole.restored.plan.warnings && whole.restored.awayRepositories.isEmpty)
        let away = RepositorySource(
            settings: pair.second.settings,
            openStore: { () throws(KedgeError) in throw KedgeError(.repositoryUnavailable, "away") },
            createStore: { () throws(KedgeError) in throw KedgeError(.repositoryUnavailable, "away") })
        for standby in [false, true] {
            let options = Restore.Options(
                clusterName: "main", request: RestoreRequest(standby: standby),
                pgdata: RawPath(pair.directory("away-\(standby)")), configuredPgdata: "/nowhere",
                restoreCommand: RestoreCommandLine(words: ["kedge"]), processMax: 1,
                workDirectory: RawPath(pair.directory("work")))
            let outcome = try Restore(pair.first.source, options, walSources: [pair.first.source, away]).run()
            #expect(outcome.awayRepositories == ["second"])
            let added = outcome.warnings.filter { !outcome.plan.warnings.contains($0) }
            // A standby waits for it.
            #expect(added.count == (standby ? 0 : 2))
            guard !standby else { continue }
            #expect(added[0].contains("what only repository \"second\" has is not recovered"))
            #expect(added[1].contains("Bring that repository back and restore again before the server is promoted"))
        }
    }
}
