// That everything that can be wrong with a key has a message of its own with a hint, and an exit status that PostgreSQL
// does not take for "there is no such file": one table of what is wrong, run through the tool on a local repository.
import Glibc
import KedgeCatalog
import KedgeCodec
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@testable import KedgeCommand

/// A local repository with a key file "main" and a passphrase "paper", two data keys, and a segment sealed with each.
private final class KeyScene {
    let directory: TemporaryDirectory
    let template: KeyTemplate

    /// The segment that the newest data key sealed.
    static let segment = "000000010000000000000006"

    init(encrypted: Bool = true) throws {
        directory = try TemporaryDirectory()
        template = try (encrypted ? KeyTemplate.encrypted : KeyTemplate.plain).get()
        let store = try LocalStore(at: directory.path, marker: nil, random: SystemRandomSource())
        for (name, bytes) in template.contents { _ = try store.put(name, ObjectBody(bytes), .createOnly) }
    }

    /// Rewrites a slot, given by label and sequence.
    func change(_ slot: String, _ body: (String) -> String) throws {
        let name = try #require(template.slots[slot])
        let path = directory(name.text)
        let text = String(decoding: try FileDescriptor.open(RawPath(path), .read).readAll(limit: 65536), as: UTF8.self)
        let changed = body(text)
        try #require(changed != text)
        try FileSystem.removeFile(at: RawPath(path))
        _ = try DurableFile.write(Array(changed.utf8), to: RawPath(path), random: SystemRandomSource())
    }

    func remove(_ names: [String]) throws {
        for name in names { try FileSystem.removeFile(at: RawPath(directory(try #require(template.slots[name]).text))) }
    }

    var keyText: String { String(decoding: template.secret.keyFileText ?? [], as: UTF8.self) }
}

/// What every scene begins with, made once: each passphrase slot costs a tenth of a second.
private struct KeyTemplate: Sendable {
    let contents: [ObjectName: [UInt8]]
    let secret: KeyEncryptionSecret
    let identity: RandomID
    /// Names of the slots, by label and sequence.
    var slots: [String: ObjectName] = [:]
    var secondKey = RandomID.zero

    static let encrypted = Result { try KeyTemplate(encrypted: true) }
    static let plain = Result { try KeyTemplate(encrypted: false) }

    private init(encrypted: Bool) throws {
        let repository = try MemoryRepository(encrypted: encrypted, walSegmentSize: 1 << 20)
        identity = repository.identity.id
        secret = repository.secret ?? .newKeyFile(random: SystemRandomSource())
        if encrypted {
            let paper = try KeyEncryptionSecret(parsingPassphrase: Array("correct horse".utf8), what: "p")
            try repository.archive(5...5)
            _ = try KeyAdd(
                repository.source, secret: paper, label: "paper", random: SystemRandomSource(), time: ManualTime()
            ).run()
            let rotated = try KeyRotate(
                repository.source, secrets: [NamedSecret(paper, what: "p")], random: SystemRandomSource(),
                time: ManualTime()
            ).run()
            secondKey = rotated.key
            for slot in try repository.open().slots {
                slots["\(slot.label)\(slot.sequence)"] = RepositoryLayout.keySlot(key: slot.keyID, slot: slot.slotID)
            }
            try repository.archive(6...6)
        }
        contents = repository.store.contents
    }
}

/// Something that is wrong with the keys.
private struct KeyProblem: Sendable {
    let name: String
    var command = ["key", "list"]
    var configuration = "encryption = aes-256-gcm\nkey-file = /k"
    var encrypted = true
    var mode: UInt32 = 0o600
    var user: UInt32 = 0
    /// What the file /k holds; nil: the right key; "-": there is no file.
    var file: String?
    var hangs = false
    var known: UInt64?
    var prepare: @Sendable (KeyScene) throws -> Void = { _ in }
    /// The exit status of the command, and of archive-get in recovery.
    var status: Int32 = 1
    let message: String
}

@Suite struct KeyMessageTests {
    private static let problems: [KeyProblem] = [
        KeyProblem(
            name: "wrong key file", file: String(repeating: "ab", count: 32) + "\n",
            message: "cannot open repository \"main\": the key file \"/k\" opens none of its key slots"),
        KeyProblem(
            name: "missing key file", file: "-", status: 2, message: "could not open key file \"/k\""),
        KeyProblem(
            name: "key file that everybody can read", mode: 0o644,
            message: "cannot use key file \"/k\": other users have access to it"),
        KeyProblem(
            name: "key file that the group can read", mode: 0o640, user: 26,
            message: "cannot use key file \"/k\": its group may read it"),
        KeyProblem(name: "empty key file", file: "", status: 2, message: "cannot use key file \"/k\" (It is empty.)"),
        KeyProblem(
            name: "cut key file", file: "abcdef0123", status: 2,
            message: "cannot use key file \"/k\" (It was cut: it holds 10 of the 64 hexadecimal digits of a key.)"),
        KeyProblem(
            name: "wrong passphrase", configuration: "encryption = aes-256-gcm\npassphrase-file = /k", file: "wrong\n",
            message: "cannot open repository \"main\": the passphrase in \"/k\" opens none of its key slots"),
        KeyProblem(
            name: "passphrase where there is none", configuration: "encryption = aes-256-gcm\npassphrase-file = /k",
            file: "wrong\n", prepare: { try $0.remove(["paper1", "paper2"]) },
            message: "cannot open repository \"main\" with a passphrase: it has no key slot for one"),
        KeyProblem(
            name: "key file where there is none", prepare: { try $0.remove(["main1", "main2"]) },
            message: "cannot open repository \"main\" with a key file: it has no key slot for one"),
        KeyProblem(
            name: "passphrase-command that fails",
            configuration: "encryption = aes-256-gcm\npassphrase-command = echo hunter2; exit 3",
            message: "could not get the passphrase from passphrase-command"),
        KeyProblem(
            name: "passphrase-command that prints nothing",
            configuration: "encryption = aes-256-gcm\npassphrase-command = true",
            message: "could not get the passphrase from passphrase-command: it printed none"),
        KeyProblem(
            name: "passphrase-command that hangs",
            configuration: "encryption = aes-256-gcm\npassphrase-command = pass", hangs: true,
            message: "could not get the passphrase from passphrase-command: it did not end in time"),
        KeyProblem(
            name: "damaged slots",
            prepare: { scene in
                for slot in ["main1", "main2"] { try scene.change(slot) { $0.replacing("\"wrapped\"", with: "\"w\"") } }
            }, status: 3,
            message: "cannot open repository \"main\" with the key file \"/k\" (cause: cannot use key slot: Its member "
                + "\"wrapped\" is missing.)"),
        KeyProblem(
            name: "cut slots",
            prepare: { scene in
                for slot in ["main1", "main2"] { try scene.change(slot) { String($0.prefix(100)) } }
            }, status: 3,
            message: "cannot open repository \"main\" with the key file \"/k\" (cause: cannot use key slot: It is not "
                + "valid JSON)"),
        KeyProblem(
            name: "slots of another repository",
            prepare: { scene in
                for slot in ["main1", "main2"] {
                    try scene.change(slot) {
                        $0.replacing(scene.template.identity.hex, with: RandomID(high: 1, low: 2).hex)
                    }
                }
            }, status: 3,
            message:
                "cannot open repository \"main\" with the key file \"/k\" (cause: cannot use key slot: It belongs to "
                + "the repository 00000000000000010000000000000002.)"),
        KeyProblem(
            name: "scrypt that needs too much memory",
            configuration: "encryption = aes-256-gcm\npassphrase-file = /k", file: "correct horse\n",
            prepare: { scene in
                for slot in ["paper1", "paper2"] {
                    try scene.change(slot) { $0.replacing("\"n\": 32768", with: "\"n\": 2097152") }
                }
            }, status: 3,
            message: "cannot open repository \"main\" with the passphrase in \"/k\" (cause: cannot open key slot: Its "
                + "scrypt parameters n = 2097152, r = 8, p = 1 are not accepted: n must be a power of two from 2^15 to "
                + "2^20, r = 8 and p = 1. They would need 2048 MiB of memory.)"),
        KeyProblem(
            name: "no slot at all", prepare: { try $0.remove(["main1", "main2", "paper1", "paper2"]) },
            message: "cannot open repository \"main\": it has no key slots"),
        KeyProblem(
            name: "plain repository, encryption configured", encrypted: false, status: 2,
            message: "cannot open repository \"main\": it is not encrypted, and the configuration says encryption = "
                + "aes-256-gcm"),
        KeyProblem(
            name: "encrypted repository, none configured", configuration: "encryption = none", status: 2,
            message: "cannot open repository \"main\": it is encrypted, and the configuration says encryption = none"),
        KeyProblem(
            name: "data key without a slot", command: ["archive-get", KeyScene.segment, "/nowhere/RECOVERYXLOG"],
            prepare: { try $0.remove(["main2", "paper2"]) }, status: 126,
            message: "(cause: cannot decrypt without key: The repository has no usable slot of this key)"),
        KeyProblem(
            name: "data key with a slot for another secret",
            command: ["archive-get", KeyScene.segment, "/nowhere/RECOVERYXLOG"],
            prepare: { try $0.remove(["main2"]) }, status: 126,
            message: "(cause: cannot decrypt without key: It is data key 2 of the repository)"),
        KeyProblem(
            name: "a newer data key was seen", command: ["key", "rotate", "--leave-out", "paper"], known: 3,
            message: "cannot write to repository \"main\": this host has seen a newer data key than there is"),
        KeyProblem(
            name: "rotation that leaves somebody out", command: ["key", "rotate"], status: 2,
            message: "cannot rotate the data key of repository \"main\": the new one would stay closed to secrets that "
                + "open the present ones"),
        KeyProblem(
            name: "removal of the last slots", command: ["key", "remove", "--label", "main"],
            prepare: { try $0.remove(["paper1"]) },
            message:
                "cannot remove the key slots \"main\" of repository \"main\": nothing else opens data key 1, and it is "
                + "needed"),
        KeyProblem(
            name: "removal of the own slots", command: ["key", "remove", "--label", "main"],
            message:
                "cannot remove the key slots \"main\" of repository \"main\": the configured secret would not open "
                + "data "
                + "key 1 any more"),
    ]

    @Test("each has a message of its own, a hint, and its exit status; archive-get in recovery says 126")
    func messages() throws {
        var texts: [String: String] = [:]
        for problem in Self.problems {
            let run = try Self.run(problem, problem.command)
            #expect(run.ending == .exit(problem.status), "\(problem.name): \(run.errors)")
            Self.expect(problem.message, in: run.errors, problem.name)
            #expect(run.errors.contains("\nhint: "), "\(problem.name): \(run.errors)")
            #expect(!run.errors.contains("hunter2"))
            let text = run.errors.replacing(/[0-9a-f]{16,}/, with: "ID")
            #expect(texts[text] == nil, "\(problem.name) reads as \(texts[text] ?? "")")
            texts[text] = problem.name
            guard problem.command == ["key", "list"] else { continue }
            let get = try Self.run(problem, ["archive-get", KeyScene.segment, "/nowhere/RECOVERYXLOG"])
            #expect(get.ending == .exit(126), "\(problem.name): \(get.errors)")
        }
    }

    @Test("the undamaged repository gives no message")
    func undamaged() throws {
        var problem = KeyProblem(name: "none", message: "")
        #expect(try Self.run(problem, ["key", "list"]).ending == .exit(0))
        problem.known = 2
        let rotated = try Self.run(problem, ["key", "rotate", "--leave-out", "paper"])
        #expect(rotated.ending == .exit(0), "\(rotated.errors)")
    }

    private static func run(_ problem: KeyProblem, _ command: [String]) throws -> ToolRun {
        let scene = try KeyScene(encrypted: problem.encrypted)
        try problem.prepare(scene)
        let configuration = """
            [repository main]
            path = \(scene.directory.path)
            \(problem.configuration)
            [cluster main]
            pgdata = /nowhere
            archive-get-timeout = 0s
            """
        var files = ["/etc/kedge/kedge.conf": configuration]
        if problem.file != "-" { files["/k"] = problem.file ?? scene.keyText }
        let read = reader(files)
        let (mode, user, hangs) = (problem.mode, problem.user, problem.hangs)
        let known = problem.known.map { KeyVersion(sequence: $0, id: scene.template.secondKey) }
        return ToolRun(
            command, existing: ["recovery.signal"],
            readFile: { (path: String, what: String, limit: Int) throws(KedgeError) in
                SmallFile(bytes: try read(path, what, limit).bytes, mode: mode, user: user)
            },
            runShell: { (command: String) throws(KedgeError) in
                if hangs { throw KedgeError(.timeout, "could not wait for program \"/bin/sh\" any longer") }
                return try Surroundings.real.runShell(command)
            }, keyMemory: known.map { FixedMemory(known: $0) })
    }

    /// `expected` is the message, and in parentheses what the detail, or message and detail of the cause, begin with.
    private static func expect(_ expected: String, in errors: String, _ name: String) {
        // Names of objects are random.
        let lines = errors.replacing(/(key slot|without key) "[^"]*"( of repository "main")?/, with: { $0.output.1 })
        let parts = expected.split(separator: " (", maxSplits: 1, omittingEmptySubsequences: true).map(String.init)
        let (message, rest) =
            expected.hasPrefix("(") ? ("", String(expected.dropFirst())) : (parts[0], parts.count > 1 ? parts[1] : "")
        if !message.isEmpty { #expect(lines.hasPrefix("kedge: error: \(message)\n"), "\(name): \(lines)") }
        for part in rest.hasSuffix(")") ? rest.dropLast().split(separator: ": ", maxSplits: 2) : [] {
            #expect(lines.contains(part), "\(name): \(part): \(lines)")
        }
    }

    private struct FixedMemory: KeyMemory {
        let known: KeyVersion

        func location(of repository: RandomID) -> String { "\"/var/lib/work/newest-key\"" }
        func newestKey(of repository: RandomID) -> KeyVersion? { known }
        func remember(_ key: KeyVersion, of repository: RandomID) {}
    }
}
