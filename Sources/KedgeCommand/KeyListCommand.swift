// `kedge key list`.
import KedgeCatalog
import KedgeCore
import KedgeRepository

/// The command line of `key list`.
enum KeyListCommand {
    static let command = Command(specification, run: run)

    static let specification = CommandSpecification(
        name: "key list", summary: "list the repository's keys",
        description: [
            "Lists the data keys and, for each, the slots that can open it and what is sealed with it. New objects are "
                + "sealed with the newest key that the configured secret opens."
        ],
        options: [
            .flag(
                "all-objects",
                "Count everything that each key seals, not just backups. Reads the header of every object.")
        ])

    private static func run(_ context: CommandContext) throws(KedgeError) -> CommandResult {
        let configuration = try context.loadConfiguration()
        let repository = try configuration.repository()
        let looksAtAll = context.arguments.has("all-objects")
        let outcome = try KeyList(context.source(of: repository), looksAtAll: looksAtAll).run()
        guard !outcome.slots.isEmpty else {
            return CommandResult(
                lines: ["repository \"\(repository.name)\" is not encrypted and has no keys"], json: ["slots": []])
        }
        let noun = looksAtAll ? "object" : "backup"
        var table = TextTable([
            .right("key"), .left("key id"), .left("slot"), .left("label"), .left("opened by"), .left("created"),
            .left("open here"), .left("seals"),
        ])
        for slot in outcome.slots {
            let count = outcome.usage.objects[slot.key] ?? 0
            let sealed = "\(count) \(noun)\(count == 1 ? "" : "s")"
            table.add([
                String(slot.sequence), slot.key.hex, slot.slot, slot.label, slot.secret, slot.createdAt,
                slot.keyIsOpen ? "yes" : "no", slot.key == outcome.newest ? "\(sealed), new ones" : sealed,
            ])
        }
        var lines = table.lines
        lines += outcome.unusable.map { "unusable: \($0.name): \($0.error.detail ?? $0.error.message)" }
        lines += outcome.usage.unreadable.map { "unreadable, so nobody knows which key it needs: \($0)" }
        return CommandResult(lines: lines, json: json(outcome, repository.name, noun))
    }

    private static func json(_ outcome: KeyList.Outcome, _ repository: String, _ noun: String) -> JSONValue {
        let slots = outcome.slots.map { slot -> JSONValue in
            [
                "key": .string(slot.key.hex), "sequence": .int(slot.sequence), "slot": .string(slot.slot),
                "label": .string(slot.label), "secret": .string(slot.secret), "createdAt": .string(slot.createdAt),
                "keyIsOpen": .bool(slot.keyIsOpen), "isNewest": .bool(slot.key == outcome.newest),
            ]
        }
        let counts = Set(outcome.slots.map(\.key)).sorted().map { key -> JSONValue in
            ["key": .string(key.hex), "\(noun)s": .int(outcome.usage.objects[key] ?? 0)]
        }
        return [
            "repository": .string(repository), "slots": .array(slots), "seals": .array(counts),
            "unusable": .array(outcome.unusable.map { .string($0.name.text) }),
            "unreadable": .array(outcome.usage.unreadable.map { .string($0.text) }),
        ]
    }
}
