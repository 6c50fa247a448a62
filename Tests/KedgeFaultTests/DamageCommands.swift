// Runs commands on a damaged repository and says in a few words what they made of it, compared with the undamaged one.
import KedgeArchive
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeRestore
import KedgeTestSupport
import KedgeVerify
import Testing

/// The commands of the damage table. Made for one sample, whose answers are the right ones.
final class DamageCommands {
    static let columns = [
        "archive-get", "archive-push", "info", "cat", "restore", "verify", "proven", "expire", "lease", "key list",
    ]

    /// As usual: the damaged object is not read, or the damage changes nothing that counts.
    private static let usual = "–"

    private let sample: DamageSample
    private let fixture: ArchiveFixture
    private let scratch: TemporaryDirectory
    /// What the undamaged repository answers.
    private var right: [String: [UInt8]] = [:]
    private var runs = 0

    init(_ sample: DamageSample) throws {
        self.sample = sample
        fixture = try ArchiveFixture(system: SystemIdentifier(7))
        scratch = try TemporaryDirectory(inMemory: true)
        try fixture.write("pg_wal/00000009.history", Array("1\t0/900000\treason\n".utf8))
        _ = try Directory.create(at: RawPath(scratch("work")))
    }

    /// Learns the right answers, which there must be.
    func expectUndamaged(_ kind: DamagedKind) {
        do {
            right = [:]
            let answers = try run(kind, on: sample.store.copy(), learning: true)
            #expect(answers.allSatisfy { $0 == Self.usual || $0 == nil }, "\(kind.rawValue): \(answers)")
            let verified = String(decoding: right["verify"] ?? [], as: UTF8.self)
            #expect(!verified.contains("finds foreign"), "\(verified)")
        } catch {
            Issue.record("the undamaged repository fails: \(error)")
        }
    }

    /// What each command makes of the repository in `store`; nil for `verify`, which takes long, unless it is asked
    /// for.
    func run(
        _ kind: DamagedKind, on store: MemoryStore, verifying: Bool = true, learning: Bool = false
    ) throws -> [String?] {
        runs += 1
        let source = source(store)
        let commands: [(String, () throws -> [UInt8])] = [
            ("archive-get", { try self.fetch(kind, source) }), ("archive-push", { try self.push(source, store) }),
            ("info", { try self.info(source) }), ("cat", { try self.show(kind, source) }),
            ("restore", { try self.restore(source) }),
            ("verify", { try self.verify(self.source(store.copy())) }), ("proven", { try self.proven(source) }),
            ("expire", { try self.expire(source) }),
            ("lease", { try self.lease(source) }), ("key list", { try self.keys(source) }),
        ]
        return try commands.map { name, command in
            guard name != "verify" || verifying else { return nil }
            switch try outcome(name, command) {
            case .failure(let error): return word(name, error)
            case .success(let answer):
                if learning { right[name] = answer }
                return answer == right[name] ? Self.usual : try judge(name, answer)
            }
        }
    }

    private func source(_ store: MemoryStore) -> RepositorySource {
        RepositorySource(
            settings: sample.repository.settings, openStore: { () throws(KedgeError) in store },
            createStore: { () throws(KedgeError) in store })
    }

    private func outcome(_ name: String, _ command: () throws -> [UInt8]) throws -> Result<[UInt8], KedgeError> {
        do {
            return .success(try command())
        } catch let error as KedgeError {
            return .failure(error)
        }
    }

    /// The code, and the exit status that the command ends with.
    private func word(_ command: String, _ error: KedgeError) -> String {
        #expect(error.code != .defect, "\(command): \(error)")
        return command == "archive-get"
            ? "\(error.code.rawValue) (126)" : "\(error.code.rawValue) (\(error.code.exitStatus))"
    }

    /// An answer that is not the usual one: what `info` says, and what else may be right.
    private func judge(_ command: String, _ answer: [UInt8]) throws -> String {
        let text = String(decoding: answer, as: UTF8.self)
        switch command {
        case "info":
            let codes = Set(text.split(separator: "\n").filter { $0.hasPrefix("message ") }).subtracting(
                String(decoding: right["info"] ?? [], as: UTF8.self).split(separator: "\n"))
            let words = Set(codes.compactMap { $0.split(separator: " ").dropFirst().first }).sorted()
            return words.isEmpty ? "shows less" : "says " + words.joined(separator: ", ")
        case "archive-get" where text == "absent": return "absent (1)"
        case "restore":
            // A restore that succeeds must have restored a genuine backup of this cluster, whole.
            #expect(try isGenuine(text), "restored what was never backed up:\n\(text)")
            let words = text.contains(DamageSample.labels[0]) ? "the backup before" : "up to an earlier end"
            return Self.said(text).map { "\(words), \($0)" } ?? words
        case "cat": return "shows it"
        case "expire":
            let usual = Set(String(decoding: right["expire"] ?? [], as: UTF8.self).split(separator: "\n"))
            let removed = Set(text.split(separator: "\n")).filter { $0.hasPrefix("removes ") }
            // Only what nobody can notice, that an object was never there, may remove more.
            let isMore = !removed.isSubset(of: usual)
            return isMore ? "removes more" : removed.isEmpty ? "removes nothing" : "removes less"
        case "proven":
            let claims = Set(text.split(separator: "\n"))
            let usual = Set(String(decoding: right["proven"] ?? [], as: UTF8.self).split(separator: "\n"))
            #expect(claims.filter { $0.hasPrefix("proven") }.isSubset(of: usual), "claims a proof:\n\(text)")
            return Self.said(text) ?? "shows less"
        case "verify":
            let lines = Set(text.split(separator: "\n"))
            let usual = Set(String(decoding: right["verify"] ?? [], as: UTF8.self).split(separator: "\n"))
            #expect(
                lines.filter { $0.hasPrefix("restores") }.isSubset(of: usual), "proves what it should not:\n\(text)")
            var words = lines.subtracting(usual).filter { $0.hasPrefix("finds ") }.sorted().map { String($0) }
            if lines.contains(where: { $0.hasPrefix("fails") }) { words.insert("fails a backup", at: 0) }
            return words.isEmpty ? "shows less" : words.joined(separator: ", ")
        case "key list": return Self.said(text) ?? "shows less"
        case "lease": return text
        default:
            Issue.record("\(command) served what was never stored: \(text)")
            return "SERVED"
        }
    }

    /// The codes of what an answer names as unreadable; nil where there is nothing of the kind.
    private static func said(_ answer: String) -> String? {
        let codes = Set(answer.split(separator: "\n").filter { $0.hasPrefix("unreadable ") }.map { $0.dropFirst(11) })
        return codes.isEmpty ? nil : "says " + codes.sorted().joined(separator: ", ")
    }

    // MARK: - Commands

    private func fetch(_ kind: DamagedKind, _ source: RepositorySource) throws -> [UInt8] {
        var file = DamageSample.goodFile
        if let name = sample.name(kind), name.text.contains("/wal/"),
            let parsed = ClusterLayout.parseWALFile(name.lastComponent)
        {
            file = parsed.file.text
        }
        let options = ArchiveGet.Options(
            fileName: file, destination: RawPath(scratch("fetched-\(runs)")), clusterName: "main",
            dataDirectory: RawPath(fixture.directory.path), repositories: [source], threads: 1, timeoutNanoseconds: 0)
        let outcome = try ArchiveGet(
            options, random: SystemRandomSource(), time: ManualTime(), interruption: Interruption()
        ).run()
        guard case .fetched = outcome else { return Array("absent".utf8) }
        let bytes = try FileDescriptor.open(options.destination, .read).readAll(limit: 1 << 21)
        try FileSystem.removeFile(at: options.destination)
        return Self.hash(bytes)
    }

    /// What stands for a file's content: comparing it byte by byte takes long where nothing is optimised.
    private static func hash(_ bytes: [UInt8]) -> [UInt8] { Array("\(bytes.count) \(ContentHash(of: bytes))".utf8) }

    private func push(_ source: RepositorySource, _ store: MemoryStore) throws -> [UInt8] {
        let options = ArchivePush.Options(
            path: fixture.path("pg_wal/00000009.history"), clusterName: "main",
            dataDirectory: RawPath(fixture.directory.path), repositories: [source], threads: 1,
            refusesDamagedWAL: false, hostName: "db1")
        _ = try ArchivePush(options, random: SystemRandomSource(), time: ManualTime()).run()
        // What it stored must not disturb what is looked at afterwards.
        _ = try store.remove(["main/wal/7/history/00000009.history"])
        return []
    }

    private func info(_ source: RepositorySource) throws -> [UInt8] {
        let cluster = Info.Cluster(
            name: "main", repositories: [ConfiguredRepository(name: "main", source: .success(source))])
        let found = try Info([cluster], time: ManualTime(), random: SystemRandomSource(), interruption: Interruption())
            .run()[0]
        guard let (_, result) = found.repositories.first else { return [] }
        let info = try result.get()
        var lines = info.backups.map { "backup \($0.record.label) \($0.hasItsWAL.map { "\($0)" } ?? "?")" }
        lines += info.windows.map { "window \($0.timeline) \($0.from) \($0.to)" }
        lines += info.inventory.timelines.map { "wal \($0.id) \($0.runs) \($0.partials.sorted())" }
        lines += info.intents.map { "intent \($0.label)" }
        lines += found.messages.map { "message \($0.error.code.rawValue) \($0.error.message)" }
        return Array(lines.joined(separator: "\n").utf8)
    }

    private func show(_ kind: DamagedKind, _ source: RepositorySource) throws -> [UInt8] {
        guard let name = sample.name(kind) else { return [] }
        let view: Cat.View = name.text.contains("/wal/") ? .data : kind == .partPack ? .entries : .record
        let shown = kind == .partPack ? sample.name(.manifest) : name
        let outcome = try Cat(.init(repository: source, name: (shown ?? name).text, view: view)).run { _ in }
        return switch outcome {
        case .json(let value): Array(value.compactText.utf8)
        case .bytes(let bytes): Self.hash(bytes)
        case .entries(let count): Array("\(count)".utf8)
        }
    }

    /// What counts as proven of each backup.
    private func proven(_ source: RepositorySource) throws -> [UInt8] {
        let cluster = try source.openCluster("main", for: .read)
        let proofs = ProofCatalog(cluster)
        let names = try proofs.names().proofs
        var lines: [String] = []
        for record in try BackupCatalog(cluster).list().backups {
            let (standing, unreadable) = try proofs.standing(of: record, names[record.label] ?? [])
            if standing.proof != nil { lines.append("proven \(record.label)") }
            if standing.failure != nil { lines.append("failed \(record.label)") }
            lines += unreadable.map { "unreadable \($0.error.code.rawValue)" }
        }
        return Array(lines.joined(separator: "\n").utf8)
    }

    /// What retention would do.
    private func expire(_ source: RepositorySource) throws -> [UInt8] {
        let options = Expire.Options(
            clusterName: "main", repository: source, rules: RetentionRules(keepFull: 1), isDryRun: true,
            process: ProcessIdentity(hostName: "db2", processID: 9))
        let outcome = try Expire(
            options, random: SystemRandomSource(), time: ManualTime(), interruption: Interruption()
        ).run()
        var lines = outcome.plan.removed.map { "removes \($0.label)" }
        lines += outcome.withdrawn.map { "withdraws \($0.label)" } + outcome.plan.blocks.map { "blocked \($0)" }
        return Array(lines.joined(separator: "\n").utf8)
    }

    /// Whether somebody else gets the lease that another process holds.
    private func lease(_ source: RepositorySource) throws -> [UInt8] {
        let cluster = try source.openCluster("main", for: .write)
        let request = LeaseRequest(
            operation: "backup", process: ProcessIdentity(hostName: "db2", processID: 9), label: nil)
        let progress = WorkProgress.Snapshot(step: "", number: 0, doneBytes: 0, totalBytes: nil)
        do throws(KedgeError) {
            _ = try Lease.take(request, in: cluster, progress: progress, time: ManualTime())
            return Array("taken".utf8)
        } catch {
            guard error.code == .locked, let detail = error.detail else { throw error }
            let answer =
                detail.contains("20 %") ? "held" : detail.contains("10 %") ? "held as before" : "held by somebody"
            return Array(answer.utf8)
        }
    }

    /// What `verify` says of each backup, up to where it restores, and which kinds of findings there are.
    private func verify(_ source: RepositorySource) throws -> [UInt8] {
        let options = Verify.Options(
            clusterName: "main", repositories: [ConfiguredRepository(name: "main", source: .success(source))],
            workers: 1, hostName: "db1")
        let outcome = try Verify(options, Verify.Tools(time: ManualTime())).run()
        guard let (_, result) = outcome.repositories.first else { return [] }
        let verification = try result.get()
        var lines: [String] = []
        for backup in verification.backups {
            lines.append("\(backup.restores ? "restores" : "fails") \(backup.record.label)")
            if let end = backup.latest { lines.append("reaches \(backup.record.label) \(end.timeline) \(end.lsn)") }
        }
        lines += verification.findings.map { "finds \($0.kind.rawValue)" }
        return Array(lines.joined(separator: "\n").utf8)
    }

    private func keys(_ source: RepositorySource) throws -> [UInt8] {
        let outcome = try KeyList(source).run()
        var lines = outcome.slots.map { "slot \($0.slot) \($0.label) \($0.keyIsOpen)" }
        lines += outcome.unusable.map { "unreadable \($0.error.code.rawValue)" }
        return Array(lines.joined(separator: "\n").utf8)
    }

    // MARK: - Restores

    /// Whether a restore gave a backup of this cluster as it was stored, and WAL as it was archived: the recovery
    /// target alone may differ from the usual one.
    private func isGenuine(_ answer: String) throws -> Bool {
        if genuine.isEmpty {
            let store = sample.store.copy()
            for label in DamageSample.labels.reversed() {
                genuine.append(try Self.stored(String(decoding: restore(source(store)), as: UTF8.self)))
                _ = try store.remove(store.names.filter { $0.text.contains(label) })
            }
        }
        return genuine.contains { Self.stored(answer).isSubset(of: $0) }
    }
    private var genuine: [Set<Substring>] = []

    /// The lines that describe what comes out of the repository as it is.
    private static func stored(_ answer: String) -> Set<Substring> {
        let aside = ["plan ", "postgresql.auto.conf ", "unreadable "]
        return Set(answer.split(separator: "\n").filter { line in !aside.contains { line.hasPrefix($0) } })
    }

    private func restore(_ source: RepositorySource) throws -> [UInt8] {
        let target = scratch("restored")
        defer { _ = try? Subprocess(["rm", "-rf", target]).run() }
        let options = Restore.Options(
            clusterName: "main", request: RestoreRequest(), pgdata: RawPath(target), configuredPgdata: "/nowhere",
            restoreCommand: RestoreCommandLine(words: ["kedge"]), processMax: 1,
            workDirectory: RawPath(scratch("work")))
        let outcome = try Restore(source, options).run()
        var lines = ["plan \(outcome.plan.backup.label) \(outcome.plan.timeline) \(outcome.plan.target)"]
        lines += outcome.unreadable.map { "unreadable \($0.error.code.rawValue)" }
        for name in ["backup_label", "base/1259", "base/1260", "global/pg_control", "postgresql.auto.conf"] {
            let file = try FileDescriptor.open(RawPath("\(target)/\(name)"), .read)
            lines.append("\(name) \(ContentHash(of: try file.readAll(limit: 1 << 20)))")
        }
        for entry in try Directory.entries(at: RawPath("\(target)/pg_wal")) {
            let file = try FileDescriptor.open(RawPath("\(target)/pg_wal").appending(entry.name), .read)
            lines.append("pg_wal/\(entry.name) \(ContentHash(of: try file.readAll(limit: 1 << 21)))")
        }
        return Array(lines.joined(separator: "\n").utf8)
    }
}
