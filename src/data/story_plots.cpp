#include "data/story_grammar.h"

namespace zebra::story {
namespace {

constexpr auto kToy = Kind::kToy, kWear = Kind::kWear, kTool = Kind::kTool, kFood = Kind::kFood;

const Plot kLost{
    "lost",
    {kToy, kWear},
    {{"a strong wind came", "the wind", "carried"},
     {"a black crow came", "the crow", "dropped"},
     {"a playful puppy came", "the puppy", "hidden"},
     {"a sly fox came", "the fox", "taken"},
     {"a cheeky monkey came", "the monkey", "thrown"}},
    {"{hero} had {a item.look}. It could {item.can}.",
     "?{hero} [took it everywhere|loved it more than anything].",
     "[One day|One morning|One sunny day], {hero} went {place.to} with {hero.his} {adult}.",
     "Then {1}, and the {item} was gone!",
     "{hero} [looked and looked|looked high and low], but {hero.he} could not find it. {hero} "
     "[began to cry|felt very sad].",
     "Just then {a animal} came by. \"{animal.sound}! Why are you so sad?\" asked the {animal}.",
     "\"I lost my {item},\" said {hero}.", "\"I saw it,\" said the {animal}. \"Look {spot}!\"",
     "@spot,item,spot,hero: {hero} ran to look {spot}, and there was the {item.look}!",
     "@row,row,row: It was there because {2} had {3} it there.",
     "?{hero} jumped with joy and hugged the {item}.",
     "@animal,hero,item,he: \"Thank you,\" {hero} said to the {animal}, and {hero.he} took the "
     "{item} home.",
     "[From then on|After that day], {hero} always [took good care of|held on to] the {item}."}};

const Plot kBroken{
    "broken",
    {kToy},
    {{"a big dog jumped on it", "a big dog jumped on it", "kept the {item} away from the dog"},
     {"the {item} fell off the table", "it fell off the table",
      "never put the {item} on the table again"},
     {"the rain made it wet", "the rain made it wet", "took the {item} inside when it rained"},
     {"{hero} threw it too hard", "I threw it too hard", "never threw the {item} again"},
     {"a heavy box fell on it", "a heavy box fell on it", "kept the {item} far from heavy things"}},
    {"{hero}'s best toy was {a item.look}. It could {item.can}.",
     "[One day|One morning|After lunch], {hero} and {friend} played with the {item} {place.in}.",
     "?They [laughed a lot|had so much fun].",
     "But then {1}. Crack! The {item} [broke|was broken].",
     "{hero} [was very sad|began to cry]. {hero} ran home to {hero.his} {adult}.",
     "\"What happened?\" asked {hero.his} {adult}.",
     "@row,item,row: \"My {item} is broken because {2},\" said {hero}.",
     "\"Do not worry,\" said {hero.his} {adult}. \"We can fix it with [some glue|a little "
     "glue|string and glue].\"",
     "They worked [all day|for an hour|until dinner], and then the {item} was as good as new.",
     "@can,can,item: {hero} was happy, because the {item} could {item.can} again.",
     "@row,row,item: From that day on, {hero} {3}."}};

const Plot kShare{
    "share",
    {kFood},
    {{"a bird had taken it", "the bird"},
     {"it had fallen in the mud", "the mud"},
     {"{friend.his} brother had eaten it", "{friend.his} brother"},
     {"{friend.he} had left it at home", "home"},
     {"the dog had eaten it", "the dog"}},
    {"One day, {hero} and {friend} sat down to eat {place.in}.",
     "{hero} had {a item.look}. It was {item.can}.",
     "{friend} had no food, because {1}. \"I am so hungry,\" said {friend}.",
     "{hero} looked at the {item}. {hero.he} wanted to eat it all, but {hero.he} did not want "
     "{friend} to be sad.",
     "@item,swap,item: So {hero} cut the {item} in two and gave one half to {friend}.",
     "\"Thank you, {hero},\" said {friend} with a [big|happy] smile.",
     "?They ate together and [talked and laughed|looked at the clouds].",
     "The next day, {friend} had {a other.look}. It was {other.can}.",
     "@exchange,item,swap: \"You gave me some of your {item}, {hero}, so now I will give you some "
     "of my {other}.\"",
     "@other,swap,exchange: {friend} gave {hero} half of the {other}.",
     "[It feels good to share|Sharing made them best friends|When you share, you are never "
     "alone]."}};

const Plot kWeather{
    "weather",
    {},
    {{"dark clouds came and it began to rain", "{hero} got wet from head to toe", "umbrella",
      "it rained"},
     {"a cold wind began to blow", "{hero}'s neck was as cold as ice", "scarf",
      "the wind was cold"},
     {"the sun became very hot", "{hero}'s head became too hot", "sun hat", "the sun was hot"},
     {"it began to snow", "{hero}'s fingers were so cold that they hurt", "warm gloves",
      "it snowed"},
     {"the sun went down and it was dark", "{hero} could not see the path", "lamp", "it was dark"},
     {"the ground became soft and muddy", "{hero}'s socks got wet and dirty", "rubber boots",
      "it was muddy"}},
    {"[One day|One morning|One Sunday], {hero} wanted to go {place.to} with {friend}.",
     "[\"Take your {3} with you,\" said {hero.his} {adult}.|\"Look at the sky before you go,\" "
     "said {hero.his} {adult}.]",
     "\"No, I [do not want to|want to go now],\" said {hero}, and {hero.he} ran out of the door.",
     "{hero} and {friend} played {place.in}. [At first all was well|They had a lot of fun].",
     "But then {1}.",
     "@row,row,friend,row: Soon {2}. \"{friend}, I want to go home,\" said {hero}.",
     "At home, {hero.his} {adult} gave {hero.him} [a cup of warm milk|some hot soup|a big hug].",
     "\"I was wrong,\" said {hero}. \"Next time I will listen to you.\"",
     "@row,row,row: The next time {4}, {hero} took the {3}.",
     "?{friend} said, \"You are very clever, {hero}!\""}};

const Plot kNoise{
    "noise",
    {kToy},
    {{"Tap, tap, tap", "a branch at the window"},
     {"Meow, meow", "a little cat at the door"},
     {"Drip, drip, drip", "the water in the kitchen"},
     {"Hoo, hoo", "an owl in the tree"},
     {"Squeak, squeak", "a tiny mouse with some cheese"},
     {"Ding, dong", "the old clock in the hall"},
     {"Knock, knock", "{friend}, who came to say good night"}},
    {"One night, {hero} lay in bed with {hero.his} {item.look}. The wind was [cold|loud|strong].",
     "\"{1}!\" What was that?",
     "{hero} was scared. {hero.he} [hid under the blanket|held the {item} tight|closed {hero.his} "
     "eyes].",
     "\"{1}!\" There it was again.",
     "{hero} called {hero.his} {adult}. \"There is a monster in the house!\" {hero.he} said.",
     "\"Let us go and look,\" said {hero.his} {adult}. They [took a lamp|held hands] and went to "
     "see.",
     "@row,row,row: But there was no monster. It was only {2}.",
     "{hero} laughed. {hero.he} was not scared any more.",
     "\"Things look small when you are not afraid of them,\" said {hero.his} {adult}.",
     "@item,item,adult,he: {hero} went back to bed with {hero.his} {item} and said good night to "
     "{hero.his} {adult}.",
     "?Soon {hero} was fast asleep."}};

const Plot kRescue{
    "rescue",
    {},
    {{"stuck in a deep hole", "a long rope", "pulled it out"},
     {"caught in a net", "a pair of scissors", "cut the net"},
     {"very thirsty", "a bowl of water", "let it drink"},
     {"high up on a wall", "a tall ladder", "carried it down"},
     {"cold and wet", "a dry towel", "rubbed it dry"},
     {"very hungry", "a bag of food", "let it eat"},
     {"hurt on one leg", "a clean bandage", "put it around the leg"}},
    {"[One day|One afternoon], {hero} and {friend} went for a walk {place.in}.",
     "\"{animal.sound}! {animal.sound}!\" What was that sound?",
     "@animal,animal,animal: {hero} looked {spot} and saw {a animal}.",
     "The poor {animal} was {1}.",
     "\"We must help it,\" said {hero}. \"{friend}, please stay here with the {animal}.\"",
     "{hero} ran home as fast as {hero.he} could.",
     "@row,row,row,animal: Soon {hero} came back with {2} and {3}.",
     "?{friend} clapped {friend.his} hands.",
     "The {animal} was so happy. \"{animal.sound}!\" it said. That means thank you.",
     "Then it went back to its {animal.home}.",
     "@animal,friend,swap: \"You were very good to the {animal}, {hero},\" said {friend}.",
     "[Even small children can do big things|It is good to help those who are in trouble]."}};

const Plot kTruth{
    "truth",
    {kTool},
    {{"ran in the house and fell over it", "run in the house"},
     {"threw a ball and hit it", "throw balls in the house"},
     {"climbed up to get it and dropped it", "climb up to high places"},
     {"danced on the table and kicked it", "dance on the table"},
     {"sat on it by mistake", "sit down without looking"}},
    {"{hero}'s {adult} had {a item.look}. It could {item.can}. {hero}'s {adult} loved it very "
     "much.",
     "[One day|One rainy day], {hero} was home with {friend}.", "{hero} {1}, and the {item} broke.",
     "\"Oh no!\" said {hero}. {hero.he} hid the {item} [under the bed|behind a chair|in a dark "
     "corner].",
     "In the evening, {hero.his} {adult} asked, \"Where is my {item}?\"",
     "{hero} wanted to say that the {animal} did it. But it is wrong to lie.",
     "@item,friend,he,row: \"I broke your {item}. {friend} did not do it,\" {hero} said, and "
     "{hero.he} told {hero.his} {adult} all about it.",
     "{hero}'s {adult} was sad about the {item}, but gave {hero} a hug. \"Thank you for telling "
     "the truth.\"",
     "@row,row,row: \"I will never {2} again,\" said {hero}.",
     "?[Telling the truth is hard, but it makes your heart feel light|A true word is better than a "
     "new toy]."}};

const Plot kContest{
    "contest",
    {kWear, kToy},
    {{"running race", "ran up the hill", "run"},
     {"swimming race", "swam in the lake", "swim"},
     {"singing contest", "sang to the birds", "sing"},
     {"drawing contest", "drew a picture", "draw"},
     {"jumping contest", "jumped over logs", "jump"},
     {"dancing contest", "danced in the yard", "dance"}},
    {"Soon there would be a {1} {place.in}. The prize was {a item.look}.",
     "\"I will win,\" said {friend}. \"I am the best. I do not need to practice.\"",
     "{hero} did not say a word. [Every day|Every morning|Every evening], {hero.he} {2}.",
     "{friend} only [slept in the sun|ate sweets|played games] all day.",
     "The big day came. {hero.his} {adult} came to watch.",
     "@row,row,row: Everyone was there to see the {1}.",
     "@swap,hero,swap,row: {hero} was the best in the {1}, because {hero.he} had practiced so "
     "much.",
     "@item,exchange,item,he: The judge gave the {item.look} to {hero}, and {hero.he} held it up "
     "high.",
     "{friend} was sad. \"I should have practiced, too,\" {friend.he} said.",
     "@row,row,row: \"Come with me tomorrow,\" said {hero}. \"I will help you to {3} better.\"",
     "?And so they became good friends."}};

const Plot kGift{
    "gift",
    {kToy, kTool},
    {},
    {"It was {friend}'s birthday, and {hero} wanted to buy a gift.",
     "{friend} had always wanted something that could {item.can}.",
     "{hero} went to the shop with {hero.his} {adult}.",
     "[There they saw {a item.look} and {a other.look}|There they saw {a other.look} and {a "
     "item.look}].",
     "?\"Which one is right for {friend}?\" asked {hero.his} {adult}.",
     "{hero} [thought about it for a long time|thought and thought].",
     "@exchange,item,exchange,swap: Then {hero} bought the {item} for {friend}.",
     "They put it in a box with a [red|blue|green|yellow] ribbon and went {place.to}, where the "
     "party was.",
     "{friend} opened the box. \"Oh, {a item.look}!\" {friend.he} said.",
     "@can,can,exchange: \"Now I have something that can {item.can}!\"",
     "@swap,friend,he,hero: {friend} hugged {hero} and said thank you to {hero.him}.",
     "[A good gift shows that you listen to your friends|It was the best birthday ever]."}};

const Plot kSeed{
    "seed",
    {},
    {{"sunflower", "tall and yellow", "gave its seeds to the birds"},
     {"pumpkin", "big and round", "made a hot soup"},
     {"rose", "red and sweet", "put it in a vase"},
     {"carrot", "long and orange", "pulled it out of the ground"},
     {"strawberry", "red and juicy", "put it on a cake"},
     {"bean plant", "as high as the roof", "climbed up on it"},
     {"apple tree", "full of apples", "baked a pie"}},
    {"One spring day, {hero}'s {adult} gave {hero} and {friend} two small seeds.",
     "\"These are seeds of {a 1},\" said {hero}'s {adult}. \"They need water every day.\"",
     "{hero} and {friend} put the seeds in the ground {place.in}.",
     "{hero} gave water to {hero.his} seed every day. But {friend} forgot.",
     "?A {animal} came by to look. \"{animal.sound},\" it said.", "Days went by. The sun was warm.",
     "@swap,hero,swap: Then one morning, something green came up. {hero}'s seed had begun to grow!",
     "@row,row,row: At last it was {a 1}. It was {2}.",
     "@swap,friend,swap: \"Why did my seed not grow?\" asked {friend}. \"You forgot to give it "
     "water, {friend},\" said {hero}.",
     "{hero} was [good|kind] and shared with {friend}.", "@row,row,row: Together they {3}.",
     "[Good things need care and time|If you care for small things, they become big]."}};

const Plot kWork{
    "work",
    {kToy, kWear},
    {{"two", "wash the dishes", "washed the dishes", "dishes"},
     {"three", "feed the hens", "fed the hens", "hens"},
     {"four", "sweep the floor", "swept the floor", "floor"},
     {"five", "pick the apples", "picked the apples", "apples"},
     {"six", "water the plants", "watered the plants", "plants"},
     {"ten", "paint the fence", "painted the fence", "fence"}},
    {"[One day|One morning|Last summer], {hero} saw {a item.look} in a shop {place.in}.",
     "\"I want that {item},\" said {hero}, \"because it can {item.can}.\"",
     "The {item} cost {1} coins, but {hero} had no [coins|money] at all.",
     "{hero} asked {hero.his} {adult} for help.",
     "\"You can {2},\" said {hero.his} {adult}. \"Then I will give you {1} coins.\"",
     "@row,row,row: So {hero} {3}. It was hard work.",
     "?{hero} got tired, but {hero.he} did not stop.",
     "@row,row,adult,row: When the work was done, {hero.his} {adult} gave {hero.him} {1} coins.",
     "@item,item,he,hero: {hero} ran back to the shop, and {hero.he} bought the {item}.",
     "@can,can,item: All evening long, {hero} watched the {item} and saw that it could {item.can}.",
     "?{hero} was proud, because {hero.he} had worked for it."}};

const Plot kTrade{
    "trade",
    {kToy, kTool},
    {},
    {"{hero} had {a item.look}. It could {item.can}.",
     "{hero.his} friend {friend} had {a other.look}. It could {other.can}.",
     "[One day|One afternoon] they met {place.in}.",
     "\"I like your {other},\" said {hero}. \"I like your {item},\" said {friend}.",
     "\"Let us trade!\" they [said|called] at the same time.",
     "{hero} gave the {item} to {friend}, and {friend} gave the {other} to {hero}.",
     "@exchange,swap,item,other: Now {hero} had the {other} and {friend} had the {item}.",
     "?They [ran home|said goodbye] with a smile.", "\"Look, {adult}!\" {hero} called at home.",
     "@exchange,item,can,other: \"{friend} gave me this {other}. It can {other.can}!\"",
     "\"Did you not like your {item}?\" asked {hero}'s {adult}. \"I did,\" said {hero}, \"but "
     "{friend} will take good care of it.\"",
     "@exchange,item,he,other: That night, {hero} put the {other} next to {hero.his} bed."}};

const Plot kLostWay{
    "lost way",
    {kTool, kFood},
    {{"river", "The river runs past my house", "walked along the river"},
     {"bell", "The bell is in my village", "walked to the sound of the bell"},
     {"smoke", "The smoke comes from my house", "walked to the smoke"},
     {"bright star", "The star is over my house", "walked to where the star was"},
     {"tall tower", "The tower is next to my house", "walked to the tower"},
     {"white stones", "The stones lie along my path", "walked from stone to stone"}},
    {"One day, {hero} went for a long walk with {hero.his} {item.look}.",
     "{hero} walked and walked until {hero.he} came to a dark forest. {hero.he} did not know the "
     "way home.",
     "{hero} sat down and [cried|began to cry].",
     "Then {a animal} came by. \"{animal.sound}! Are you lost?\"",
     "\"Yes,\" said {hero}. \"I want to go home to my {adult}.\"",
     "\"What can you see or hear?\" asked the {animal}. \"The {1}!\" said {hero}.",
     "@row,row,row: \"{2}!\"", "@row,row,animal,row: So {hero} and the {animal} {3}.",
     "After some time, {hero} saw the house. {hero.his} {adult} stood at the door.",
     "@animal,item,he: {hero} was so happy that {hero.he} gave the {item} to the {animal}.",
     "@adult,hero,he: {hero.his} {adult} gave {hero} a big hug and took {hero.him} inside.",
     "?When you are lost, stop and look around."}};

const Plot kWarning{
    "warning",
    {kToy},
    {{"touch the hot stove", "burn your hand", "touched the hot stove", "burned {hero.his} hand"},
     {"run on the ice", "slip and fall", "ran on the ice", "slipped and fell"},
     {"eat all the sweets", "get a tummy ache", "ate all the sweets", "got a tummy ache"},
     {"leave the gate open", "lose the goat", "left the gate open", "lost the goat"},
     {"pull the cat's tail", "get a scratch", "pulled the cat's tail", "got a scratch"},
     {"jump in the mud", "get dirty shoes", "jumped in the mud", "got dirty shoes"},
     {"poke the bees", "get stung", "poked the bees", "got stung"}},
    {"[One day|One morning], {hero} and {friend} played with {a item.look} {place.in}.",
     "\"Do not {1},\" said {hero}'s {adult}, \"or you will {2}.\"",
     "{friend} listened and played with the {item}. But {hero} did not listen.",
     "When {hero.his} {adult} was not looking, {hero} {3}.", "@row,row,swap,row: Ouch! {hero} {4}.",
     "?\"Help, help!\" {hero} called.", "{hero.his} {adult} came at once and helped {hero.him}.",
     "\"I am sorry,\" said {hero}. {hero.he} felt bad.",
     "@row,row,row: \"Now you know why I said you should not {1},\" said {hero.his} {adult}.",
     "@item,friend,item,swap: {hero} went back to {friend}, and they played with the {item} until "
     "dinner.",
     "[{hero} learned to listen|After that, {hero} always listened]."}};

const Plot kHide{
    "hide and seek",
    {},
    {},
    {"[One day|One warm day], {hero} and {friend} played hide and seek {place.in}.",
     "{hero} closed {hero.his} eyes and counted to [ten|twenty]. {friend} ran to hide {spot}.",
     "\"Here I come!\" called {hero}.",
     "First {hero} looked {spot2}. There was [no one there|only {a animal}].",
     "?\"Where can {friend} be?\" thought {hero}.",
     "{hero} stood still and listened. \"Achoo!\" {friend} had to sneeze!",
     "@spot,swap,spot,friend: {hero} looked {spot}, and there was {friend}!",
     "\"I found you, {friend}!\" {hero} said with a laugh.",
     "@swap,friend,hero: Now it was {friend}'s turn to count. {hero} wanted to hide in the place "
     "where {hero.he} had looked first.",
     "@spot2,spots,he,spot2: So {hero} hid {spot2}, and {hero.he} was as quiet as a mouse.",
     "{friend} looked for a long time. At last {friend.he} found {hero}.",
     "?They played until {hero}'s {adult} called them home to eat."}};

const Plot kTogether{
    "together",
    {kFood},
    {{"log", "on the path", "off the path"},
     {"cart", "in the mud", "out of the mud"},
     {"boat", "on the sand", "into the water"},
     {"pumpkin", "in the ground", "out of the ground"},
     {"snow ball", "in the yard", "up the hill"},
     {"rock", "in front of the door", "away from the door"}},
    {"[One day|One morning], {hero} saw a huge {1} {2}.",
     "{hero} wanted to move it, because it was [in the way|right there in the way].",
     "{hero} pushed and pulled. But the {1} was too heavy.",
     "{hero} called {friend}. They pushed and pulled together. But the {1} did not move.",
     "Then {a animal} came by. \"{animal.sound}! May I help?\" it asked.",
     "\"You are too small,\" said {friend}. But {hero} said, \"Please help us!\"",
     "@animal,swap,animal,friend: So {hero} pulled, {friend} pushed, and the {animal} pushed, too.",
     "@row,row,row: One, two, three! The {1} moved {3}.",
     "@animal,friend,animal: \"I was wrong,\" said {friend}. \"Even a small {animal} can help a "
     "lot.\"",
     "{hero}'s {adult} gave them {a item.look}. It was {item.can}.",
     "@item,item,animal,friend: {hero}, {friend} and the {animal} sat down {place.in} and ate the "
     "{item}.",
     "?[Together we are strong|Many hands make light work]."}};

const Plot kNewFriend{
    "new friend",
    {kToy, kTool},
    {{"drawing pictures", "drew a picture"},
     {"telling stories", "told a story"},
     {"singing songs", "sang a song"},
     {"baking cakes", "baked a cake"},
     {"counting stars", "counted the stars"},
     {"building towers", "built a tower"}},
    {"{hero} came to a new town with {hero.his} {adult}. {hero.he} had no friends there.",
     "[One day|The next day], {hero} took {hero.his} {item.look} and went {place.to}.",
     "A {friend.kind} stood there all alone. \"Hello, I am {friend},\" said the {friend.kind}. "
     "\"What is that?\"",
     "@can,can,item: \"It is {a item.look},\" said {hero}. \"It can {item.can}.\"",
     "\"Oh, I like it!\" said {friend}. \"May I try?\"",
     "@swap,item,friend: {hero} gave the {item} to {friend}.",
     "They played with it for a long time.",
     "\"What do you like best?\" asked {hero}. \"I like {1},\" said {friend}.",
     "\"Me, too!\" said {hero}. \"Let us do that tomorrow!\"",
     "@row,row,row: The next day, {hero} and {friend} {2} together.",
     "@friend,he,friend: {hero} told {hero.his} {adult} about {friend}. Now {hero.he} had a "
     "friend.",
     "?[You can find a friend in any place|One smile can make a friend]."}};

const Plot kBorrow{
    "borrow",
    {kToy, kTool, kWear},
    {{"it was dark", "lamp in {hero.his} hand"},
     {"it rained", "coat over {hero.his} head"},
     {"it snowed", "warm hat on {hero.his} head"},
     {"it was muddy", "pair of boots on {hero.his} feet"}},
    {"{friend} had {a item.look}. \"May I have your {item} for one day?\" asked {hero}.",
     "\"Yes,\" said {friend}, \"but please bring it back.\" {hero} [was so glad|said thank you].",
     "{hero} took the {item} {place.to} and played all day.",
     "In the evening, {hero} went home. But the {item} was not in {hero.his} bag!",
     "\"Where were you with it?\" asked {hero.his} {adult}.",
     "@place,item,place,friend: \"I left {friend}'s {item} {place.in}!\" said {hero}.",
     "Now {1} outside. But {hero} was brave.", "@row,row,row: {hero.he} went out with a {2}.",
     "@place,item,place: The {item} was still {place.in}. It lay {spot}.",
     "@swap,item,swap,friend: The next day, {hero} gave the {item} back to {friend}.",
     "\"Thank you, {hero},\" said {friend}. \"You can have it again some day.\"",
     "?[A good friend brings things back|{hero} was glad that {hero.he} had kept the promise]."}};

const std::vector<Plot> kPlots{kLost,    kBroken,  kShare, kWeather,  kNoise,     kRescue,
                               kTruth,   kContest, kGift,  kSeed,     kWork,      kTrade,
                               kLostWay, kWarning, kHide,  kTogether, kNewFriend, kBorrow};

}  // namespace

const std::vector<Plot>& plots() { return kPlots; }

}  // namespace zebra::story
