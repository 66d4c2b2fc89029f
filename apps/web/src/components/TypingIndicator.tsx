import { useSelect } from "../context/AuthContext";
import { useName } from "../hooks/useName";

const NOBODY: Readonly<Record<string, number>> = {};

/** Who is writing in the channel. */
export function TypingIndicator({ channelId }: { channelId: string }) {
  const typing = useSelect((state) => state.typing[channelId]) ?? NOBODY;
  const users = Object.keys(typing);
  const [first, second] = users;
  return (
    <div className="typing" role="status" aria-label="Who is typing">
      {first && users.length > 3 && <>Several people are typing…</>}
      {first && users.length === 1 && (
        <>
          <Name userId={first} /> is typing…
        </>
      )}
      {first && second && users.length <= 3 && (
        <>
          {users.slice(0, -1).map((userId, index) => (
            <span key={userId}>
              {index > 0 && ", "}
              <Name userId={userId} />
            </span>
          ))}{" "}
          and <Name userId={users.at(-1) ?? second} /> are typing…
        </>
      )}
    </div>
  );
}

function Name({ userId }: { userId: string }) {
  const name = useName(userId);
  return <bdi className="strong">{name ?? "Somebody"}</bdi>;
}
