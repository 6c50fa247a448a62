// That the percentage of a sample is read as people write it, and nothing else is; and that success is told only where
// something was verified.

import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeTestSupport
import KedgeVerify
import Testing

@testable import KedgeCommand

@Suite struct VerifyCommandTests {
    /// A repository with WAL, and with a backup where there is a `suffix` for its label.
    private func repository(_ name: String, _ suffix: String? = nil) throws -> MemoryRepository {
        let memory = try MemoryRepository(name: name, walSegmentSize: 1 << 20)
        try memory.archive(5...8)
        if let suffix {
            _ = try PaperBackup(memory.cluster()).commit(
                PaperEntry.minimal(),
                as: .sample(try label(suffix), start: LSN(5 << 20 + 0x28), stop: LSN(5 << 20 + 0x100)))
        }
        return memory
    }

    private func label(_ suffix: String) throws -> Label { try #require(Label("20261121T020000Z-full-\(suffix)")) }

    private func verify(_ repositories: [MemoryRepository], labels: [Label] = []) throws -> CommandResult {
        try VerifyCommand.result(
            Verify(
                Verify.Options(
                    clusterName: "main",
                    repositories: repositories.map {
                        ConfiguredRepository(name: $0.settings.name, source: .success($0.source))
                    }, labels: labels, workers: 1, hostName: "db1"),
                Verify.Tools(time: ManualTime(), random: SeededRandom(seed: 1))
            ).run())
    }

    private func statuses(_ result: CommandResult) throws -> [String] {
        try JSONRecord(result.json, what: "verify").records("repositories").map { try $0.string("status") }
    }

    @Test("a repository without a backup is not sound: it says so, and the status is 1")
    func nothing() throws {
        let empty = try verify([repository("main")])
        #expect(
            empty.lines == [
                "repository main: NOTHING TO VERIFY: there is no backup, and nothing can be restored from here before "
                    + "\"kedge backup\" has made one"
            ])
        #expect(empty.status == 1)
        #expect(try statuses(empty) == ["nothing"])
        let sound = try verify([repository("main", "aaaa")])
        #expect(sound.status == 0, "\(sound.lines)")
        #expect(try statuses(sound) == ["sound"])
        // One good repository does not make up for the other.
        let both = try verify([repository("main", "aaaa"), repository("offsite")])
        #expect(both.status == 1)
        #expect(try statuses(both) == ["sound", "nothing"])
    }

    @Test("a backup that was asked for is verified where it is: failed is where none has it, or a repository is away")
    func oneOfTwo() throws {
        let (main, offsite) = (try repository("main", "aaaa"), try repository("offsite", "bbbb"))
        for (wanted, found) in [("aaaa", 0), ("bbbb", 1)] {
            let label = try label(wanted)
            let result = try verify([main, offsite], labels: [label])
            #expect(result.status == 0, "\(result.lines)")
            #expect(try statuses(result) == (found == 0 ? ["sound", "nothing"] : ["nothing", "sound"]))
            let other = found == 0 ? "offsite" : "main"
            #expect(result.lines.contains("repository \(other): nothing verified: it has no backup \(label)"))
        }
        // Each has one of two.
        let both = try verify([main, offsite], labels: [label("aaaa"), label("bbbb"), label("aaaa")])
        #expect(both.status == 0, "\(both.lines)")
        #expect(try statuses(both) == ["sound", "sound"])
        #expect(both.lines.filter { $0.hasSuffix(" is not in this repository") }.count == 2)
        // None has it, whatever else was verified.
        let unknown = try label("zzzz")
        for labels in [[unknown], [unknown, try label("aaaa")]] {
            let result = try verify([main, offsite], labels: labels)
            #expect(result.status == 1, "\(result.lines)")
            #expect(result.lines.last == "no repository that could be read has backup \(unknown): see \"kedge info\"")
        }
        // One could not be asked.
        let away = ConfiguredRepository(
            name: "away", source: .failure(KedgeError(.repositoryUnavailable, "could not reach it", hint: "Wait.")))
        let outcome = try Verify(
            Verify.Options(
                clusterName: "main",
                repositories: [ConfiguredRepository(name: "main", source: .success(main.source)), away],
                labels: [label("aaaa")], workers: 1, hostName: "db1"),
            Verify.Tools(time: ManualTime(), random: SeededRandom(seed: 1))
        ).run()
        #expect(try VerifyCommand.result(outcome).status == 1)
        // Of a single repository the reason is the command's own error.
        #expect(throws: KedgeError.self) { try verify([main], labels: [unknown]) }
    }

    @Test("where all commit records are gone, what they referred to is named, and the status is 1")
    func lostCatalog() throws {
        let memory = try repository("main", "aaaa")
        let name = try #require(ClusterLayout.commitRecord(label: label("aaaa").text))
        _ = try memory.store.remove([memory.cluster().name(name)])
        let result = try verify([memory])
        #expect(result.status == 1 && result.lines.first?.contains("NOTHING TO VERIFY") == true, "\(result.lines)")
        #expect(result.lines.contains { $0.contains("there is a manifest of") && $0.contains("but no such backup") })
    }

    @Test(
        "a percentage is parts of a million",
        arguments: [
            ("5%", 50_000), ("0.5%", 5000), ("5", 50_000), ("99.9999%", 999_999), ("0.0001%", 1), ("12.25", 122_500),
        ])
    func percentages(_ text: String, _ parts: UInt32) {
        #expect(VerifyCommand.partsPerMillion(text) == parts)
    }

    @Test(
        "what is no part of the whole is refused",
        arguments: [
            "", "%", "0", "0%", "100%", "-1", "5 %", ".5", "5.", "1e1", "5%%", "0.00001%", "99999999999", "1.2.3",
            "\u{663}",
        ])
    func refused(_ text: String) {
        #expect(VerifyCommand.partsPerMillion(text) == nil)
    }
}
