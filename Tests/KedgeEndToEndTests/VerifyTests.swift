// That the built kedge verifies what a real server archived and what the built kedge backed up: it passes, names any
// object that one byte of was changed in, and does not cry wolf while WAL and another backup arrive.
import KedgeCore
import KedgeTestSupport
import Testing

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs PostgreSQL: scripts/test.sh"))
struct VerifyEndToEndTests {
    private func backedUp(_ installation: PostgresInstallation, encrypted: Bool = true) throws -> ProtectedCluster {
        let cluster = try ProtectedCluster(installation, encrypted: encrypted)
        try cluster.server.psql("create table t as select g, repeat('x', 100) from generate_series(1, 20000) g")
        try cluster.kedge(["backup"])
        try cluster.server.psql("insert into t select g, 'later' from generate_series(1, 20000) g")
        try cluster.archiveEverything()
        return cluster
    }

    /// The objects of a repository, as paths below its directory.
    private func objects(_ cluster: ProtectedCluster) throws -> [String] {
        let found = try ServerUser.run(["find", cluster.repository, "-type", "f", "-printf", "%P\\n"])
        return found.split(separator: "\n").map(String.init).sorted()
    }

    /// Changes one bit in the middle of a file.
    private func flip(_ path: String, at offset: UInt64) throws {
        let file = try FileDescriptor.open(RawPath(path), [.read, .write])
        var byte: [UInt8] = [0]
        _ = try byte.withMutableBytes { (buffer) throws(KedgeError) in try file.read(into: buffer, at: offset) }
        try file.write([byte[0] ^ 0x10], at: offset)
    }

    @Test(
        "what a server archived and kedge backed up passes, and a changed byte is named with its object",
        arguments: PostgresInstallation.all)
    func changedBytes(_ installation: PostgresInstallation) throws {
        let cluster = try backedUp(installation)
        let first = try cluster.kedge(["verify"])
        #expect(first.hasPrefix("repository main: sound; "), "\(first)")
        #expect(first.contains(" restores up to "))
        #expect(first.contains("(last commit, abort or end of a backup)"))
        // Nothing is read twice within verify-every; with --full it is, and finds the same.
        let again = try cluster.kedge(["verify"])
        #expect(again.contains(" in 0 pack(s) and "), "\(again)")
        let info = try cluster.kedge(["info"])
        #expect(info.contains("proof: verified "), "\(info)")
        let json = try JSONRecord(parsing: cluster.kedge(["verify", "--sample", "50%", "--json"]).utf8, what: "verify")
        let repository = try #require(try json.records("repositories").first)
        #expect(try repository.string("status") == "sound")
        #expect(try repository.integer("samplePartsPerMillion", as: UInt32.self) == 500_000)
        #expect(try repository.records("findings").isEmpty)
        let reach = try #require(try repository.records("backups").first?.records("reach").first)
        #expect(try reach.integer("timeline", as: Int.self) == 1)
        let random = SeededRandom(seed: testSeed())
        let label = try cluster.kedge(["info", "--json"]).split(separator: "\"").map(String.init)
            .first { $0.contains("-full-") }
        var names = try objects(cluster).filter { $0 != "kedge.json" && !$0.contains("catalog/proof") }
        if !PostgresInstallation.soakIsEnabled {
            let kinds = Dictionary(grouping: names) { $0.split(separator: "/").prefix(3).joined(separator: "/") }
            names = kinds.values.compactMap { $0.isEmpty ? nil : $0[random.next(below: $0.count)] }.sorted()
        }
        for name in names {
            let path = cluster.repository + "/" + name
            let size = try FileStatus(at: RawPath(path)).sizeBytes
            let offset = UInt64(random.next(below: Int(size)))
            try flip(path, at: offset)
            let outcome = try cluster.attempt(["verify", "--full"])
            // WAL from before the backup is of no use to anybody, and is not read.
            let isUnneeded = outcome.status.isSuccess && name.contains("/wal/") && !name.contains("history")
            if !isUnneeded {
                #expect(outcome.status == .exited(3), "\(name) at \(offset): \(outcome.outputText)")
                let text = outcome.outputText + outcome.errorText
                let last = name.split(separator: "/").last.map(String.init) ?? name
                #expect(text.contains(last) || text.contains("key"), "\(name) at \(offset): \(text)")
            }
            try flip(path, at: offset)
        }
        let whole = try cluster.kedge(["verify", "--full", "--backup", label ?? ""])
        #expect(whole.hasPrefix("repository main: sound; "), "\(whole)")
        let proofs = try cluster.kedge(["info", "--proofs"])
        #expect(proofs.contains("-verified-passed of ") && proofs.contains("-verified-failed of "))
    }

    @Test("verifying while WAL and another backup arrive does not cry wolf")
    func concurrently() throws {
        let cluster = try backedUp(.standard)
        let rounds = PostgresInstallation.soakIsEnabled ? 20 : 3
        let (configuration, directory) = (cluster.configuration, cluster.directory.path)
        let told = Monitor<[String]>([])
        let isDone = Monitor(false)
        let verifier = try Thread(name: "verifier") {
            repeat {
                do throws(KedgeError) {
                    let outcome = try KedgeBinary.run(
                        ["--config", configuration, "verify", "--full"], workingDirectory: directory)
                    let text = outcome.outputText + outcome.errorText
                    told.update { $0.append(outcome.status == .exited(0) ? "sound" : text) }
                } catch {
                    told.update { $0.append("\(error)") }
                }
            } while !isDone.update { $0 }
        }
        do {
            defer {
                isDone.update { $0 = true }
                verifier.join()
            }
            for _ in 0..<rounds {
                try cluster.server.psql("insert into t select g, repeat('y', 200) from generate_series(1, 30000) g")
                try cluster.archiveEverything()
                try cluster.kedge(["backup"])
            }
        }
        #expect(Set(told.update { $0 }) == ["sound"])
        let outcome = try cluster.attempt(["verify", "--full"])
        #expect(outcome.status == .exited(0), "\(outcome.outputText)\(outcome.errorText)")
    }
}
