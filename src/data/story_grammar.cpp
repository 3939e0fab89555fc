#include "data/story_grammar.h"

namespace zebra::story {
namespace {

const Texts kGirls{"Lily", "Anna", "Mia",   "Sara", "Emma", "Zoe",  "Lucy",  "Nora",
                   "Ella", "Ruby", "Rosa",  "Amy",  "Kate", "Jane", "Molly", "Nina",
                   "Tina", "Eva",  "Daisy", "Jill", "Hana", "Maya", "Beth",  "Clara"};

const Texts kBoys{"Tom",  "Ben",  "Max",   "Sam",   "Leo",  "Jack", "Tim",  "Finn",
                  "Adam", "Noah", "Oscar", "Peter", "Luke", "Dan",  "Hugo", "Owen",
                  "Milo", "Jake", "Omar",  "Ali",   "Theo", "Fred", "Paul", "Kai"};

const Texts kAdults{"mom", "dad", "grandma", "grandpa", "aunt", "uncle"};

const Texts kTraits{"kind",  "brave",   "shy",   "clever", "quiet",
                    "happy", "curious", "funny", "gentle", "careful"};

const Texts kOpenings{
    "Once upon a time, there was {a trait} {hero.kind} [named|called] {hero}.",
    "There once was a little {hero.kind} [named|called] {hero}. {hero} was very {trait}.",
    "{hero} was {a trait} {hero.kind} who lived in a small house."};

const std::vector<Item> kItems{
    {"ball", "red|blue|yellow", "bounce very high", Kind::kToy},
    {"kite", "green|red|long", "fly in the wind", Kind::kToy},
    {"drum", "big|brown|round", "make a loud boom", Kind::kToy},
    {"boat", "white|small|blue", "float on the water", Kind::kToy},
    {"car", "fast|red|black", "race down the road", Kind::kToy},
    {"truck", "big|yellow|green", "carry sand", Kind::kToy},
    {"train", "long|blue|old", "go around the room", Kind::kToy},
    {"doll", "pretty|small|old", "wear tiny clothes", Kind::kToy},
    {"teddy bear", "soft|brown|old", "keep bad dreams away", Kind::kToy},
    {"robot", "gray|new|small", "walk and talk", Kind::kToy},
    {"top", "shiny|red|tiny", "spin for a long time", Kind::kToy},
    {"bike", "new|blue|little", "roll down the hill", Kind::kToy},
    {"sled", "long|brown|fast", "slide on the snow", Kind::kToy},
    {"puzzle", "big|new|pretty", "show a picture", Kind::kToy},
    {"whistle", "silver|tiny|loud", "call the dogs", Kind::kToy},
    {"flute", "thin|white|old", "play a soft song", Kind::kToy},
    {"puppet", "funny|green|soft", "dance on a string", Kind::kToy},
    {"balloon", "pink|big|round", "rise up to the clouds", Kind::kToy},
    {"plane", "white|gray|new", "land on the grass", Kind::kToy},
    {"rocket", "tall|silver|red", "shoot up to the stars", Kind::kToy},
    {"wagon", "red|strong|old", "hold three children", Kind::kToy},
    {"toy duck", "yellow|soft|little", "swim in the bath", Kind::kToy},
    {"mask", "scary|funny|gold", "hide a face", Kind::kToy},
    {"toy horse", "white|brown|pretty", "rock back and forth", Kind::kToy},
    {"hat", "straw|big|yellow", "keep the sun away", Kind::kWear},
    {"coat", "warm|blue|long", "keep the rain off", Kind::kWear},
    {"scarf", "red|soft|long", "keep a neck warm", Kind::kWear},
    {"sweater", "green|warm|thick", "keep the cold out", Kind::kWear},
    {"cape", "black|long|silky", "wave like a flag", Kind::kWear},
    {"ring", "gold|tiny|pretty", "fit on one finger", Kind::kWear},
    {"crown", "golden|paper|shiny", "make a child look like a king", Kind::kWear},
    {"umbrella", "black|pink|wide", "open with a click", Kind::kWear},
    {"backpack", "blue|strong|new", "hold many books", Kind::kWear},
    {"watch", "silver|old|small", "go tick, tick, tick", Kind::kWear},
    {"necklace", "pretty|blue|long", "shine like the sea", Kind::kWear},
    {"belt", "brown|wide|new", "hold up pants", Kind::kWear},
    {"lamp", "bright|yellow|old", "shine in the dark", Kind::kTool},
    {"rope", "long|strong|brown", "tie things tight", Kind::kTool},
    {"hammer", "heavy|old|big", "hit a nail", Kind::kTool},
    {"spoon", "long|silver|big", "stir the soup", Kind::kTool},
    {"cup", "blue|white|pretty", "hold warm milk", Kind::kTool},
    {"bucket", "green|big|old", "carry water", Kind::kTool},
    {"basket", "brown|round|big", "carry many apples", Kind::kTool},
    {"shovel", "strong|small|red", "dig a deep hole", Kind::kTool},
    {"ladder", "tall|old|long", "reach the roof", Kind::kTool},
    {"key", "golden|tiny|rusty", "open a secret door", Kind::kTool},
    {"broom", "old|long|new", "sweep the floor", Kind::kTool},
    {"brush", "soft|thin|wide", "paint a wall", Kind::kTool},
    {"pen", "black|fine|new", "write nice words", Kind::kTool},
    {"net", "wide|green|long", "catch a fish", Kind::kTool},
    {"map", "old|big|yellow", "show the way home", Kind::kTool},
    {"clock", "round|loud|white", "tell the time", Kind::kTool},
    {"mirror", "round|tall|clear", "show your own face", Kind::kTool},
    {"book", "thick|old|blue", "tell many stories", Kind::kTool},
    {"camera", "small|black|new", "take pictures", Kind::kTool},
    {"box", "wooden|big|brown", "keep secrets safe", Kind::kTool},
    {"blanket", "warm|soft|purple", "cover a whole bed", Kind::kTool},
    {"vase", "tall|glass|green", "hold ten flowers", Kind::kTool},
    {"cake", "big|pretty|round", "full of cream", Kind::kFood},
    {"pie", "hot|round|big", "warm and full of berries", Kind::kFood},
    {"apple", "red|green|shiny", "sweet and crisp", Kind::kFood},
    {"pear", "yellow|green|ripe", "soft and juicy", Kind::kFood},
    {"cookie", "brown|big|round", "full of nuts", Kind::kFood},
    {"sandwich", "big|thick|fresh", "full of cheese", Kind::kFood},
    {"carrot", "long|orange|fresh", "hard and crunchy", Kind::kFood},
    {"banana", "yellow|long|ripe", "soft and sweet", Kind::kFood},
    {"muffin", "warm|little|brown", "full of chocolate", Kind::kFood},
    {"pancake", "thin|hot|golden", "sticky with honey", Kind::kFood},
    {"peach", "pink|ripe|soft", "so juicy that it dripped", Kind::kFood},
    {"melon", "green|huge|round", "cold and red inside", Kind::kFood},
    {"plum", "purple|small|ripe", "a little sour", Kind::kFood},
    {"bun", "fresh|white|warm", "soft like a pillow", Kind::kFood},
};

const std::vector<Animal> kAnimals{{"dog", "Woof", "dog house"},
                                   {"cat", "Meow", "basket"},
                                   {"bird", "Tweet", "nest"},
                                   {"rabbit", "Sniff", "burrow"},
                                   {"duck", "Quack", "pond"},
                                   {"frog", "Croak", "lily pad"},
                                   {"mouse", "Squeak", "hole"},
                                   {"squirrel", "Chip", "tree"},
                                   {"hen", "Cluck", "hen house"},
                                   {"goat", "Baa", "barn"},
                                   {"lamb", "Maa", "flock"},
                                   {"pony", "Neigh", "stable"},
                                   {"hedgehog", "Snuffle", "pile of leaves"},
                                   {"fox", "Yip", "den"},
                                   {"pig", "Oink", "pen"},
                                   {"donkey", "Heehaw", "stall"},
                                   {"owl", "Hoo", "old oak tree"},
                                   {"cow", "Moo", "field"}};

const std::vector<Place> kPlaces{
    {"park", "in", "under the bench|behind the big tree|near the swings|next to the gate"},
    {"garden", "in", "under the rose bush|behind the shed|near the well|in the tall grass"},
    {"beach", "at", "behind a rock|under a boat|next to the sand castle|near the waves"},
    {"forest", "in", "under the ferns|behind an oak|inside a hollow log|near the berry bush"},
    {"farm", "on", "behind the barn|under the cart|in the hay|next to the fence"},
    {"market", "at", "under a table|behind the fish stand|between two baskets|near the fruit cart"},
    {"river", "by", "under the bridge|behind the reeds|on the little island|next to the mill"},
    {"lake", "at", "behind the boat house|under the pier|near the willow|between two stones"},
    {"hill", "on", "behind the windmill|under the lone tree|next to the path|inside a small cave"},
    {"meadow", "in", "under the daisies|behind the stone wall|near the brook|next to a mole hill"},
    {"pond", "by", "behind the cattails|under a big leaf|near the ducks|next to the old stump"},
    {"playground", "on", "under the slide|behind the seesaw|in the sand box|near the ropes"},
    {"zoo", "at",
     "behind the lion house|under the bird cage|near the monkeys|next to the ice cream stand"},
    {"village square", "in",
     "behind the fountain|under the bell tower|near the bakery|next to the statue"},
    {"orchard", "in", "under an apple tree|behind the ladder|inside a crate|near the bee hives"},
    {"harbor", "at", "behind the nets|under a sail|inside a barrel|near the lighthouse"},
    {"castle", "at", "behind the throne|under the stairs|inside the tower|next to the old knight"},
    {"camp", "at", "under the tent|behind the wood pile|near the fire|inside the canoe"},
    {"school yard", "in", "behind the bikes|under the steps|near the flag|next to the wall"},
    {"fair", "at", "behind the big wheel|under the stage|near the pony ride|next to the clown"}};

}  // namespace

const Texts& girls() { return kGirls; }
const Texts& boys() { return kBoys; }
const Texts& adults() { return kAdults; }
const Texts& traits() { return kTraits; }
const Texts& openings() { return kOpenings; }
const std::vector<Item>& items() { return kItems; }
const std::vector<Animal>& animals() { return kAnimals; }
const std::vector<Place>& places() { return kPlaces; }

}  // namespace zebra::story
