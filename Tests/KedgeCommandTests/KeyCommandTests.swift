// What `key list` and `key add` print, and what they refuse: whole texts, run through the tool on a local repository.
import KedgeCodec
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@testable import KedgeCommand

@Suite struct KeyCommandTests {
    let directory: TemporaryDirectory
    let secret: KeyEncryptionSecret

    init() throws {
        directory = try TemporaryDirectory()
        let memory = try MemoryRepository()
        secret = try #require(memory.secret)
        let store = try LocalStore(at: directory.path, marker: nil, random: SystemRandomSource())
        for (name, bytes) in memory.store.contents { _ = try store.put(name, ObjectBody(bytes), .createOnly) }
    }

    private func text(_ secret: KeyEncryptionSecret) -> String {
        String(decoding: secret.keyFileText ?? [], as: UTF8.self)
    }

    private func run(_ words: [String], files: [String: String] = [:], key: String? = nil) -> ToolRun {
        var files = files
        files["/etc/kedge/kedge.conf"] = """
            [repository main]
            path = \(directory.path)
            encryption = aes-256-gcm
            \(key ?? "key-file = /k/main.key")
            """
        files["/k/main.key"] = text(secret)
        return ToolRun(words, files: files)
    }

    private func normalized(_ text: String) -> String {
        text.replacing(/[0-9a-f]{32}/, with: "KEY").replacing(/\b[0-9a-f]{16}\b/, with: "SLOT")
    }

    @Test("slots are listed with what opens them, and what was added opens the repository")
    func add() throws {
        let other = KeyEncryptionSecret.newKeyFile(random: SystemRandomSource())
        let files = ["/k/other.key": text(other), "/k/phrase": "correct horse\n"]
        let added = run(["key", "add", "--add-key-file", "/k/other.key", "--label", "safe"], files: files)
        #expect(
            normalized(added.output)
                == "repository \"main\" now opens with this secret too; slots added: SLOT\n", "\(added.errors)")
        let phrase = run(["key", "add", "--add-passphrase-file", "/k/phrase", "--label", "paper"], files: files)
        #expect(phrase.ending == .exit(0), "\(phrase.errors)")
        let again = run(["key", "add", "--add-key-file", "/k/other.key"], files: files)
        #expect(
            again.output == "repository \"main\" opens with this secret already; nothing was changed\n",
            "\(again.errors)")
        // Two slots were made in the same second and may be listed in either order.
        let expected = [
            "key  key id                            slot              label  opened by   created               "
                + "open here  seals",
            "  1  KEY  SLOT  main   key file    2026-11-18T11:06:40Z  yes        0 backups, new ones",
            "  1  KEY  SLOT  paper  passphrase  2026-11-20T12:30:00Z  yes        0 backups, new ones",
            "  1  KEY  SLOT  safe   key file    2026-11-20T12:30:00Z  yes        0 backups, new ones",
        ]
        for key in ["key-file = /k/other.key", "passphrase-file = /k/phrase"] {
            let list = run(["key", "list"], files: files, key: key)
            #expect(
                normalized(list.output).split(separator: "\n").map(String.init).sorted() == expected.sorted(),
                "\(list.errors)")
        }
        let json = try JSONRecord(parsing: run(["key", "list", "--json"]).output.utf8, what: "output")
        #expect(try json.records("slots").map { try $0.bool("keyIsOpen") } == [true, true, true])
    }

    @Test("a passphrase can come from a command, and its output gets into no message")
    func passphraseCommand() throws {
        let added = run(["key", "add", "--add-passphrase-command", "echo 'correct horse'"])
        #expect(added.ending == .exit(0), "\(added.errors)")
        let failing = run(["key", "add", "--add-passphrase-command", "echo secret; exit 3"])
        #expect(failing.ending == .exit(1))
        #expect(
            failing.errors == """
                kedge: error: could not get the passphrase from passphrase-command
                detail: It ended with status 3.  What it printed is not shown, since that could be a secret.
                hint: Run the command yourself, as the operating system user that runs kedge.
                code: key-missing

                """)
        let list = run(["key", "list"], key: "passphrase-command = echo 'correct horse'")
        #expect(list.output.split(separator: "\n").count == 3, "\(list.errors)")
    }

    @Test("a key that was given in place of its file is not shown", arguments: [["add", "add"], ["rewrap", "new"]])
    func keyAsFile(_ words: [String]) throws {
        let other = text(KeyEncryptionSecret.newKeyFile(random: SystemRandomSource())).filter { $0 != "\n" }
        for option in ["key-file", "passphrase-file"] {
            let run = run(["key", words[0], "--\(words[1])-\(option)", other])
            #expect(run.ending == .exit(2))
            #expect(run.errors.contains("somebody may have given the secret itself"), "\(run.errors)")
            #expect(!(run.errors + run.output).contains(other))
        }
        #expect(run(["key", words[0], "--\(words[1])-key-file", "/k/none"]).errors.contains("key file \"/k/none\""))
    }

    @Test("without exactly one secret nothing is done")
    func usage() {
        let expected = """
            hint: Give exactly one of --generate-key, --add-key-file, --add-passphrase-file and \
            --add-passphrase-command.
            code: usage

            """
        let none = run(["key", "add"])
        #expect(none.ending == .exit(2))
        #expect(none.errors == "kedge: error: cannot tell which secret to add: none is given\n" + expected)
        let both = run(["key", "add", "--add-key-file", "/a", "--generate-key", "/b"])
        #expect(both.errors == "kedge: error: cannot tell which secret to add: several are given\n" + expected)
    }

    @Test("a label that no slot can have is refused before anything is written")
    func label() throws {
        let run = run(
            ["key", "add", "--add-passphrase-file", "/k/phrase", "--label", "two words"],
            files: ["/k/phrase": "correct horse\n"])
        #expect(
            run.errors.hasPrefix("kedge: error: cannot make a key slot with the label \"two words\"\n"), "\(run.errors)"
        )
        #expect(self.run(["key", "list"]).output.split(separator: "\n").count == 2)
    }
}
