// `kedge key list`.
import KedgeCatalog
import KedgeCore

/// The command line of `key list`.
enum KeyListCommand {
    static let command = Command(specification, run: run)

    static let specification = CommandSpecification(
        name: "key list", summary: "list the repository's keys",
        description: ["Lists the data keys and, for each, the slots that can open it."])

    private static func run(_ context: CommandContext) throws(KedgeError) -> CommandResult {
        let configuration = try context.loadConfiguration()
        let repository = try configuration.repository()
        let slots = try KeyList(context.source(of: repository)).run()
        guard !slots.isEmpty else {
            return CommandResult(
                lines: ["repository \"\(repository.name)\" is not encrypted and has no keys"], json: ["slots": []])
        }
        var table = TextTable([
            .right("key"), .left("key id"), .left("slot"), .left("label"), .left("opened by"), .left("created"),
            .left("open here"),
        ])
        for slot in slots {
            table.add([
                String(slot.sequence), slot.key.hex, slot.slot, slot.label, slot.secret, slot.createdAt,
                slot.keyIsOpen ? "yes" : "no",
            ])
        }
        let json = slots.map { slot -> JSONValue in
            [
                "key": .string(slot.key.hex), "sequence": .int(slot.sequence), "slot": .string(slot.slot),
                "label": .string(slot.label), "secret": .string(slot.secret), "createdAt": .string(slot.createdAt),
                "keyIsOpen": .bool(slot.keyIsOpen),
            ]
        }
        return CommandResult(
            lines: table.lines, json: ["repository": .string(repository.name), "slots": .array(json)])
    }
}
